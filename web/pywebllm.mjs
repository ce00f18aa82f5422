// Runs a page's Python scripts with py_engine, in place of PyScript's core.js and its `config`:
// <script type="module" src="../pywebllm.mjs"></script>
// <script type="mpy">from py_engine import create_web_worker_mlc_engine ...</script>

import { pyscriptConfig } from './pyscript_config.mjs?v=__BUILD__';

for (const kind of ['mpy', 'py']) {
  const scripts = document.querySelectorAll(`script[type="${kind}"]:not([config])`);
  if (!scripts.length) continue;
  const config = JSON.stringify(await pyscriptConfig(kind));
  scripts.forEach((script) => script.setAttribute('config', config));
}
await import('./pyscript/core.js'); // reads the configuration of the scripts it finds
