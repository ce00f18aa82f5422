// Reads and writes blobs in the origin private file system, in a thread of its own, so that the
// engine's need not wait for the disk.

// The file of a tab that was just closed stays locked for a moment.
const LOCKED_TRIES = 10;
const LOCKED_MS = 200;

/** The directory at a path. Not all browsers let handles pass between threads. */
async function directoryAt(path, options) {
  let directory = await navigator.storage.getDirectory();
  for (const name of path.split('/')) directory = await directory.getDirectoryHandle(name, options);
  return directory;
}

async function open(handle) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await handle.createSyncAccessHandle();
    } catch (error) {
      if (error.name !== 'NoModificationAllowedError' || tries > LOCKED_TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, LOCKED_MS));
    }
  }
}

async function write({ folder, name, unfinished, data }) {
  const directory = await directoryAt(folder, { create: true });
  const handle = await directory.getFileHandle(unfinished, { create: true });
  const access = await open(handle);
  let written;
  try {
    access.truncate(0);
    written = access.write(data, { at: 0 });
    access.flush();
  } finally {
    access.close();
  }
  // Without room Chromium returns an error's number, throws nothing, and as long as the file is there
  // does not answer to whatever comes next.
  if (written !== data.byteLength) {
    await directory.removeEntry(unfinished);
    throw new DOMException(`${name} was not stored as a whole`, 'QuotaExceededError');
  }
  await handle.move(name);
  return data;
}

/** Fill `data` from byte `begin` on; others may read the same file. */
async function read({ folder, name, begin, data }) {
  const handle = await (await directoryAt(folder)).getFileHandle(name);
  const access = await handle.createSyncAccessHandle({ mode: 'read-only' });
  try {
    const nbytes = access.read(data, { at: begin });
    return nbytes === data.byteLength ? data : data.slice(0, nbytes);
  } finally {
    access.close();
  }
}

addEventListener('message', async ({ data: { number, task } }) => {
  try {
    const data = await (task.read ? read(task.read) : write(task.write));
    postMessage({ number, data }, [data]);
  } catch ({ name, message }) {
    postMessage({ number, error: { name, message } }); // not all browsers let errors pass
  }
});
postMessage({}); // it is there
