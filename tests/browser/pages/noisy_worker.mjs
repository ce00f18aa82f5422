// A worker whose answer comes among messages that the proxy must ignore.

addEventListener('message', ({ data: { uuid } }) => {
  for (const noise of [null, 7, 'text', [1], {}, { kind: 'return' }, { kind: 'throw', uuid: 'x' }, { kind: 'mystery', uuid }]) {
    postMessage(noise);
  }
  postMessage({ kind: 'return', uuid, content: 'noisy' });
  postMessage({ kind: 'return', uuid, content: 'twice' });
});
