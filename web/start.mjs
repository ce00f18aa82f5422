// Starts web/chat.py: on MicroPython, which is there at once, or with `?interpreter=py` on Pyodide.
// What Python cannot do itself is here too: importing ES modules.

import { renderMarkdown } from './markdown.mjs?v=__BUILD__';

globalThis.renderMarkdown = renderMarkdown;

const kind = new URLSearchParams(location.search).get('interpreter') === 'py' ? 'py' : 'mpy';
const script = document.createElement('script');
script.type = kind;
script.src = './chat.py?v=__BUILD__';
script.setAttribute('config', `./pyscript-${kind}.json?v=__BUILD__`);
document.body.append(script);

try {
  await import('./pyscript/core.js'); // reads the configuration of the scripts it finds
} catch (error) {
  document.documentElement.dataset.state = 'error';
  document.getElementById('status').textContent = `Python could not be loaded: ${error.message}`;
}
