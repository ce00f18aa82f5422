// The worker of the `engine_worker` fixture: boots as the engine's worker does, then runs code.

import { boot } from '/worker/boot.mjs';

const plain = new URLSearchParams(location.search).get('boot') === 'plain';

async function start() {
  const [{ py, bootInfo }, source] = await Promise.all([
    boot({ plain }),
    fetch('./run_code.py').then((response) => response.text()),
  ]);
  py.FS.writeFile('run_code.py', source);
  return { bootInfo, py, runCode: py.pyimport('run_code') };
}

const started = start();
started.catch(() => {}); // each request reports it

addEventListener('message', async ({ data: { id, code, values } }) => {
  try {
    const { runCode } = await started;
    postMessage({ id, result: await runCode.run(code, values) });
  } catch (error) {
    postMessage({ id, error: error.message ?? String(error) });
  }
});
