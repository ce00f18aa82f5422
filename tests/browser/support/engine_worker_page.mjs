// The page of the `engine_worker` fixture: starts the worker, passes code to it and answers back.

const worker = new Worker(`./engine_worker.mjs${location.search}`, { type: 'module' });
const waiting = new Map();
let last = 0;

worker.addEventListener('message', ({ data: { id, result, error } }) => {
  waiting.get(id)(error === undefined ? { result } : { error });
  waiting.delete(id);
});

worker.addEventListener('error', (event) => {
  waiting.forEach((settle) => settle({ error: `The worker failed to load: ${event.message}` }));
  waiting.clear();
});

globalThis.ask = (request) => new Promise((settle) => {
  waiting.set(++last, settle);
  worker.postMessage({ id: last, ...request });
  setTimeout(() => settle({ timedOut: true }), request.timeout * 1000);
});
