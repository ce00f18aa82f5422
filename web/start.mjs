// Starts a page's Python: `<html data-script="chat.py" data-modules="chat_view.py ...">`, on
// MicroPython, which is there at once, or with `?interpreter=py` on Pyodide.
// What Python cannot do itself is here too: importing ES modules.

import { renderMarkdown } from './markdown.mjs?v=__BUILD__';
import { pyscriptConfig } from './pyscript_config.mjs?v=__BUILD__';

globalThis.renderMarkdown = renderMarkdown;

function fail(error) {
  const root = document.documentElement;
  if (root.dataset.state !== 'booting') return; // Python runs and shows its errors itself
  root.dataset.state = 'error';
  const status = `Python could not be loaded: ${error?.message ?? error}. Reload the page to try again.`;
  document.getElementById('status').textContent = status;
}
addEventListener('unhandledrejection', ({ reason }) => fail(reason));

const kind = new URLSearchParams(location.search).get('interpreter') === 'py' ? 'py' : 'mpy';
const page = document.documentElement.dataset;
const script = document.createElement('script');
script.type = kind;
script.src = `${page.script}?v=__BUILD__`;

try {
  const config = await pyscriptConfig(kind, page.modules.split(' '));
  script.setAttribute('config', JSON.stringify(config));
  document.body.append(script);
  await import('./pyscript/core.js'); // reads the configuration of the scripts it finds
} catch (error) {
  fail(error);
}
