// ArrayBuffers that are used again: to get new memory costs more than to fill it.

const MOST = 8;
const IDLE_MS = 5_000;

const wanted = new Set(); // lengths
let spare = [];
let idle;

/** An ArrayBuffer of this length, whatever is in it. */
export function bufferOf(nbytes) {
  wanted.add(nbytes);
  const index = spare.findIndex((buffer) => buffer.byteLength === nbytes);
  return index < 0 ? new ArrayBuffer(nbytes) : spare.splice(index, 1)[0];
}

/** Take a buffer that nobody needs any more; it is kept for a while, if others of its length are. */
export function reuseBuffer(buffer) {
  if (!wanted.has(buffer.byteLength)) return;
  spare = [...spare, buffer].slice(-MOST);
  clearTimeout(idle);
  idle = setTimeout(() => {
    spare = [];
    wanted.clear();
  }, IDLE_MS);
}
