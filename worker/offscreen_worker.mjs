// The engine in a web worker that belongs to an extension's offscreen document; see offscreen.mjs.

import { serve } from './extension_worker.mjs?v=__BUILD__';

/** An event as the extension's own: `addListener`, `removeListener`, and `emit`. */
function makeEvent() {
  const listeners = new Set();
  return {
    addListener: (listener) => listeners.add(listener),
    removeListener: (listener) => listeners.delete(listener),
    emit: (...details) => [...listeners].forEach((listener) => listener(...details)),
  };
}

/** What the engine needs of a `chrome.runtime.Port`, over the MessagePort that stands for one. */
function portOver(messagePort, name) {
  const port = {
    name,
    onMessage: makeEvent(),
    onDisconnect: makeEvent(),
    postMessage: (message) => messagePort.postMessage(message),
  };
  messagePort.onmessage = ({ data }) => {
    if (data.isDisconnected) port.onDisconnect.emit(port);
    else port.onMessage.emit(data.message, port);
  };
  return port;
}

const onConnect = makeEvent();
addEventListener('message', ({ data: name, ports: [messagePort] }) => {
  onConnect.emit(portOver(messagePort, name));
});
serve([onConnect]);
