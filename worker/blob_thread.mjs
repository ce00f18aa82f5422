// Asks the thread that reads and writes blobs, blob_thread_worker.mjs.

import { bufferOf } from './buffers.mjs?v=__BUILD__';

const URL_OF_WORKER = new URL('./blob_thread_worker.mjs?v=__BUILD__', import.meta.url);
const START_MS = 5_000;
const IDLE_MS = 10_000;
const AGAIN_MS = 30_000; // until another try to start one

let starting; // a promise of the thread, while there is one

/**
 * Write a blob into a folder of the origin private file system, a path, which is made where it is
 * not there; until it is on the disk as a whole, it has the name `unfinished`.
 *
 * `data` is an ArrayBuffer, which the thread takes and gives back as the result. Where no thread can
 * be started the error's name is "NoThread", and `data` is left alone.
 */
export async function writeBlob(folder, name, unfinished, data) {
  return (await thread()).ask({ write: { folder, name, unfinished, data } }, data);
}

/** Read bytes `begin` to `end` of a blob, fewer where it ends before. */
export async function readBlob(folder, name, begin, end) {
  const { ask } = await thread();
  const data = bufferOf(end - begin);
  return ask({ read: { folder, name, begin, data } }, data);
}

/** End the thread, whatever it is at: what waits for it fails. */
export async function endBlobThread() {
  (await starting?.catch(() => {}))?.end('it was ended');
}

function thread() {
  starting ??= startThread().catch((error) => {
    setTimeout(() => { starting = undefined; }, AGAIN_MS);
    console.warn(`No thread reads and writes the site's files: ${error.message}`);
    throw named('NoThread', error.message);
  });
  return starting;
}

function named(name, message) {
  return Object.assign(new Error(message), { name });
}

/** Workers are of their page's own site; what one of another site runs has to be imported. */
function onThisSite(url) {
  if (url.origin === self.location.origin) return url.href;
  const code = `import ${JSON.stringify(url.href)};`;
  return URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
}

async function startThread() {
  const url = onThisSite(URL_OF_WORKER);
  const worker = new Worker(url, { type: 'module' });
  try {
    await new Promise((resolve, reject) => {
      worker.onmessage = resolve;
      worker.onerror = ({ message }) => reject(new Error(message ?? 'its script did not load'));
      setTimeout(() => reject(new Error(`it did not start in ${START_MS} ms`)), START_MS);
    });
  } catch (error) {
    worker.terminate();
    throw error;
  } finally {
    URL.revokeObjectURL(url); // which only does something where it is one of a blob
  }

  const waiting = new Map(); // by number: what to do with the answer
  let last = 0;
  let idle;
  function end(why) {
    clearTimeout(idle); // or the next thread would be forgotten
    worker.terminate();
    starting = undefined;
    for (const { reject } of waiting.values()) reject(named('AbortError', why));
    waiting.clear();
  }
  function rest() {
    if (!waiting.size) idle = setTimeout(end, IDLE_MS);
  }
  worker.onerror = (event) => {
    event.preventDefault(); // or the engine's own worker would count as broken
    end(event.message);
  };
  worker.onmessage = ({ data: { number, data, error } }) => {
    const { resolve, reject } = waiting.get(number);
    waiting.delete(number);
    if (error) reject(named(error.name, error.message));
    else resolve(data);
    rest();
  };
  function ask(task, data) {
    return new Promise((resolve, reject) => {
      last += 1;
      worker.postMessage({ number: last, task }, [data]);
      waiting.set(last, { resolve, reject });
      clearTimeout(idle);
    });
  }
  rest();
  return { ask, end };
}
