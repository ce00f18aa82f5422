// What the workers of all kinds share: messages wait until Python is there, and how it starts.

import { boot } from './boot.mjs?v=__BUILD__';

/**
 * Listen to this worker's messages from now on, and keep them.
 *
 * `take(handler)` gives those that were kept, and then all later ones, to `handler(event)`;
 * `keep()` keeps them again.
 */
export function openInbox() {
  const kept = [];
  const keep = (event) => kept.push(event);
  let handle = keep;
  addEventListener('message', (event) => handle(event));
  return {
    keep() {
      handle = keep;
    },
    take(handler) {
      handle = handler;
      kept.splice(0).forEach((event) => handler(event));
    },
  };
}

/**
 * Boot Python and let `py_engine`'s class `handlerName` take the messages.
 *
 * In the worker's URL `?boot=plain` boots without the snapshot, and `?script=URL` runs a Python file
 * first. Throws an Error that tells why it failed; the messages then are still in the inbox.
 */
export async function startEngine(inbox, handlerName, libraries) {
  const options = new URLSearchParams(location.search);
  const plain = options.get('boot') === 'plain';
  const { py } = await boot({ plain, libraries, worker: { takeMessages: inbox.take } });
  const handler = py.pyimport('py_engine')[handlerName]();
  const main = py.pyimport('py_engine.rpc.worker_main');
  const script = options.get('script');
  if (script === null) {
    main.start(handler);
  } else {
    const failure = await main.start_with_script(script, handler);
    if (failure) throw new Error(failure);
  }
}

/** The answer to request `uuid` of a worker that `startEngine` could not start. */
export function refusal(uuid, error) {
  const message = `The engine's worker could not start: ${error.message ?? error}`;
  return { kind: 'throw', uuid, content: message, error: { name: 'WorkerFailedError', message } };
}
