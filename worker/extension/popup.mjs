// Starts popup.py: on MicroPython, which is there at once, or with `?interpreter=py` on Pyodide.

import { renderMarkdown } from '../../markdown.mjs?v=__BUILD__';
import { runPython } from '../extension_page.mjs?v=__BUILD__';

globalThis.renderMarkdown = renderMarkdown;

try {
  const interpreter = new URLSearchParams(location.search).get('interpreter') ?? 'mpy';
  const shared = ['chat_form', 'chat_view', 'webgpu_check'].map((name) => `../../${name}.py`);
  await runPython('./popup.py?v=__BUILD__', { modules: [...shared, './summary.py'], interpreter });
} catch (error) {
  document.documentElement.dataset.state = 'error';
  document.getElementById('status').textContent = `Python could not be started: ${error?.message ?? error}`;
}
