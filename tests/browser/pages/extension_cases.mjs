// Runs extension_cases.py in a page of the extension; `?interpreter=mpy` or `py`, and with `offscreen` on
// an engine in an offscreen document.

import { openOffscreenEngine, runPython } from './worker/extension_page.mjs';

const options = new URLSearchParams(location.search);
try {
  if (options.has('offscreen')) await Promise.all([openOffscreenEngine(), openOffscreenEngine()]);
  const interpreter = options.get('interpreter');
  await runPython('./extension_cases.py', { interpreter, modules: ['./page_support.py'] });
  document.title = 'ready';
} catch (error) {
  document.title = `failed: ${error}`;
}
