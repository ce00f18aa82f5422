// The worker of WebWorkerMLCEngine: keeps what arrives while Python boots, then Python takes over.
// `web_worker.mjs?boot=plain` boots without the snapshot, `?script=URL` runs a Python file first.

import { boot } from './boot.mjs?v=__BUILD__';

const early = [];
const keep = (event) => early.push(event);
addEventListener('message', keep);

/** Give the kept messages and all later ones to `handler`; pywebllm_worker.takeMessages. */
function takeMessages(handler) {
  removeEventListener('message', keep);
  addEventListener('message', handler);
  early.splice(0).forEach((event) => handler(event));
}

try {
  const options = new URLSearchParams(location.search);
  const { py } = await boot({ plain: options.get('boot') === 'plain', worker: { takeMessages } });
  const main = py.pyimport('py_engine.rpc.worker_main');
  const script = options.get('script');
  if (script === null) {
    main.start();
  } else {
    const failure = await main.start_with_script(script);
    if (failure) throw new Error(failure);
  }
} catch (error) {
  console.error(error);
  const message = `The engine's worker could not start: ${error.message ?? error}`;
  const refuse = (uuid) => postMessage({
    kind: 'throw', uuid, content: message, error: { name: 'WorkerFailedError', message },
  });
  refuse(''); // our proxy ends everything; WebLLM's only understands an answer to each request
  takeMessages(({ data }) => refuse(data?.uuid ?? ''));
}
