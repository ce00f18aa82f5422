// Runs a module of this repository in Pyodide in Node.js, on a GPU that npm `webgpu` (Dawn) finds:
//   node node_gpu.mjs --pyodide FOLDER --dawn dawn.node --out FOLDER MODULE [ARGUMENTS...]
// It awaits the module's `run(ARGUMENTS)`, which may write into /out.

import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import * as bridge from '../../../worker/gpu_bridge.mjs';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const TOGGLES = [
  'enable-dawn-features=allow_unsafe_apis',
  // Otherwise timestamps are rounded to 100 us.
  'disable-dawn-features=timestamp_quantization',
];

const options = { '--pyodide': '', '--dawn': '', '--out': '.' };
const words = process.argv.slice(2);
while (words.length && words[0] in options) {
  options[words.shift()] = resolve(words.shift());
}
const [module, ...args] = words;

const { loadPyodide } = await import(pathToFileURL(`${options['--pyodide']}/pyodide.mjs`).href);
const py = await loadPyodide({ indexURL: options['--pyodide'] });
// Only now: Pyodide takes a global navigator for a sign of a browser.
const { create, globals } = createRequire(import.meta.url)(options['--dawn']);
Object.assign(globalThis, globals);
Object.defineProperty(globalThis, 'navigator', {
  value: { gpu: create(TOGGLES) }, configurable: true,
});
py.registerJsModule('pywebllm_bridge', bridge);
py.mountNodeFS('/repository', ROOT);
py.mountNodeFS('/out', options['--out']);
py.runPython('import sys; sys.path.insert(0, "/repository"); sys.dont_write_bytecode = True');
let status = 0;
try {
  await py.pyimport(module).run(args);
} catch (error) {
  // Only the message: Node.js would print Pyodide's one line of 1.2 MB with it.
  console.error(error.message);
  status = 1;
}
// Dawn's threads would keep the process alive.
process.exit(status);
