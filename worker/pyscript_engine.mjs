// The interpreter of pyscript-py-engine.json: PyScript takes it for Pyodide's own module, and gets a
// Pyodide that has booted as the worker's does, with py_engine imported.

import { boot } from './boot.mjs?v=__BUILD__';

export { version } from '../pyodide/pyodide.mjs';

export async function loadPyodide(options) {
  const { py } = await boot({ pyodide: options });
  return py;
}
