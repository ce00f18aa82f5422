// A worker that fails to start and says so once, as one whose boot failed.

const error = { name: 'WorkerFailedError', message: 'no snapshot today' };
addEventListener('message', () => postMessage({ kind: 'throw', uuid: '', content: 'x', error }), { once: true });
