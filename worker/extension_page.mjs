// What the pages of a Chrome extension need: Python, and the engine in an offscreen document.

import { pyscriptConfig } from '../pyscript_config.mjs?v=__BUILD__';

const SITE = new URL('..', import.meta.url);

/**
 * What PyScript's own module `pyscript` has, as far as it makes sense here. PyScript itself cannot run
 * in an extension: it makes functions of texts, which extensions forbid.
 */
const pyscript = {
  document,
  when: (event, target) => (handler) => {
    const kept = handler.copy?.() ?? handler; // Pyodide ends a function's life with the call
    const elements = typeof target === 'string' ? document.querySelectorAll(target) : [target];
    for (const element of elements) element.addEventListener(event, kept);
    return handler;
  },
};

const interpreters = {
  async mpy() {
    const { loadMicroPython } = await import('../micropython/micropython.mjs');
    const url = new URL('micropython/micropython.wasm', SITE).href;
    return loadMicroPython({ url, stdout: console.log, stderr: console.error, linebuffer: true });
  },
  async py() {
    const { loadPyodide } = await import('../pyodide/pyodide.mjs');
    return loadPyodide({ indexURL: new URL('pyodide/', SITE).href });
  },
};

async function read(url) {
  try {
    return await (await fetch(url)).text();
  } catch (error) {
    throw new Error(`The extension has no ${url}; was it built by build.py? (${error.message})`);
  }
}

/** Put files into Python's file system: pairs of their URL and the path there. */
async function place(python, files) {
  const texts = await Promise.all(files.map(([url]) => read(url)));
  files.forEach(([, path], index) => {
    const folders = path.split('/').slice(0, -1);
    folders.forEach((_, depth) => {
      const folder = folders.slice(0, depth + 1).join('/');
      if (!python.FS.analyzePath(folder).exists) python.FS.mkdir(folder);
    });
    python.FS.writeFile(path, texts[index]);
  });
}

/**
 * Run the Python file at `url` in this page; resolves to the interpreter when the file has ended.
 *
 * It can import `py_engine`'s proxy for extensions, `pyscript` (`document` and `when`), and `modules`:
 * URLs of Python files. `interpreter` is 'mpy', MicroPython, which is there at once, or 'py', Pyodide.
 */
export async function runPython(url, { modules = [], interpreter = 'mpy' } = {}) {
  const [python, { files }, main] = await Promise.all([
    interpreters[interpreter](),
    pyscriptConfig('extension', modules),
    read(url),
  ]);
  python.registerJsModule('pyscript', pyscript);
  await place(python, Object.entries(files));
  await python.runPythonAsync(main);
  return python;
}

/**
 * Start the engine in an offscreen document, unless it runs. It lives as long as the browser does, while
 * a background worker ends 30 seconds after the last page that uses it. The background worker then
 * must not `serve()`. The manifest needs the permission "offscreen".
 */
export async function openOffscreenEngine() {
  await navigator.locks.request('pywebllm-offscreen', async () => { // two pages may ask at once
    if (await chrome.offscreen.hasDocument()) return;
    await chrome.offscreen.createDocument({
      url: new URL('offscreen.html', import.meta.url).href,
      reasons: ['WORKERS'],
      justification: 'A web worker computes with the language model.',
    });
  });
}
