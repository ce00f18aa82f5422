// Runs a snippet as a page of its own would: in a fresh interpreter, in a <script> of PyScript.
// What it prints and its errors show on the page; the frame's element, which holds the snippet in
// its data, gets events: "progress" of models that load, and at the end "done" or "failed".

import { pyscriptConfig } from '../pyscript_config.mjs?v=__BUILD__';

const { source, kind } = frameElement.dataset;
const type = kind?.split('-')[0];
let hasFailed = false;

function tell(name, detail) {
  frameElement.dispatchEvent(new CustomEvent(name, { detail }));
}

/** Show an error that ended something, or a line that went to Python's stderr, such as a warning. */
function showError(error) {
  const isLine = typeof error === 'string';
  hasFailed ||= !isLine;
  const shown = document.createElement('pre');
  shown.className = isLine ? 'stderr' : 'error';
  shown.textContent = (isLine ? error : String(error?.message ?? error)).trim();
  document.body.append(shown);
}

/** A function that shows bytes of text in the order in which they come. */
function printer() {
  const decoder = new TextDecoder();
  return (bytes) => {
    document.body.append(decoder.decode(bytes, { stream: true }));
    return bytes.length;
  };
}

/** Show what the interpreter prints, each piece at once; PyScript would log it by lines. */
function takeOutput({ interpreter, io }) {
  if (type === 'py') {
    interpreter.setStdout({ write: printer() });
    const { open, TextIOWrapper } = interpreter.pyimport('io');
    const unbuffered = open.callKwargs(1, 'wb', { buffering: 0, closefd: false });
    interpreter.pyimport('sys').stdout = TextIOWrapper.callKwargs(unbuffered, {
      encoding: 'utf-8', write_through: true,
    });
    io.stderr = showError;
  } else {
    io.stdout = printer();
    io.stderr = io.buffered(showError);
  }
}

function watchLoading({ data }) {
  if (data?.kind === 'initProgressCallback') tell('progress', data.content);
}

// Whatever a snippet does with its worker, the loading of models shows.
globalThis.Worker = class extends Worker {
  constructor(...options) {
    super(...options);
    this.addEventListener('message', watchLoading);
  }
};
navigator.serviceWorker?.addEventListener('message', watchLoading);

async function run() {
  document.body.replaceChildren();
  addEventListener('error', ({ error, message }) => showError(error ?? new Error(message)));
  addEventListener('unhandledrejection', ({ reason }) => showError(new Error(reason?.message ?? reason)));
  const script = document.createElement('script');
  script.type = type;
  script.textContent = source;
  const config = { ...await pyscriptConfig(kind), plugins: ['!error'] }; // errors are shown here
  script.setAttribute('config', JSON.stringify(config));
  script.addEventListener(`${type}:done`, () => tell(hasFailed ? 'failed' : 'done'));
  document.head.append(script);
  const { hooks } = await import('../pyscript/core.js');
  hooks.main.onReady.add(takeOutput);
}

new ResizeObserver(() => {
  frameElement.style.height = `${document.documentElement.scrollHeight}px`;
}).observe(document.body);
if (source) await run(); // a stopped snippet's output has none
