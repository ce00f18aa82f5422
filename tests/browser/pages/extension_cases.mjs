// Runs extension_cases.py in a page of the extension; `?interpreter=mpy` or `py`.

import { runPython } from './worker/extension_page.mjs';

const interpreter = new URLSearchParams(location.search).get('interpreter');
try {
  await runPython('./extension_cases.py', { interpreter });
  document.title = 'ready';
} catch (error) {
  document.title = `failed: ${error}`;
}
