// Runs in an extension's offscreen document: gives each port that connects to the engine's worker,
// which cannot have ports of the extension itself, as a MessagePort.

const worker = new Worker('./offscreen_worker.mjs?v=__BUILD__', { type: 'module' });

chrome.runtime.onConnect.addListener((port) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = ({ data }) => port.postMessage(data);
  port.onMessage.addListener((message) => port1.postMessage({ message }));
  port.onDisconnect.addListener(() => {
    port1.onmessage = null;
    port1.postMessage({ isDisconnected: true });
  });
  worker.postMessage(port.name, [port2]);
});
