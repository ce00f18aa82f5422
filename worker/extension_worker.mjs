// The engine in the background worker of a Chrome extension: import this there and call `serve()`.

import { refusal, startEngine } from './start.mjs?v=__BUILD__';
import { libraries } from './static_libraries.mjs?v=__BUILD__';

const PORT_NAME = 'web_llm_service_worker'; // WebLLM's; ports of other names are others'

/**
 * Let the engine serve the ports of its clients that connect to this extension.
 *
 * Python boots with the first of them. `connectEvents` are where ports come from: by default from the
 * extension itself; `chrome.runtime.onConnectExternal` lets those in that the manifest names in
 * `externally_connectable`. To be called before the worker's first `await`.
 */
export function serve(connectEvents = [chrome.runtime.onConnect]) {
  const inbox = openPorts(connectEvents, async () => {
    try {
      await startEngine(inbox, 'ExtensionServiceWorkerMLCEngineHandler', libraries);
    } catch (error) {
      console.error(error);
      inbox.take((port, messages) => refuse(port, messages, error));
      inbox.keep(); // the next port starts the engine again, as the cause may be gone
    }
  });
}

/**
 * Keep ports and what comes through them; with the first that is kept call `begin()`.
 *
 * `take(handler)` gives those that were kept, and then all later ones, to `handler(port, messages)`;
 * `keep()` begins anew.
 */
function openPorts(connectEvents, begin) {
  const kept = new Map(); // by port: what came through it, and the listener that keeps it
  let handle = keepFirst;

  function keepFirst(port) {
    handle = keep;
    keep(port);
    begin();
  }

  function keep(port) {
    const messages = [];
    const listener = (message) => messages.push(message);
    port.onMessage.addListener(listener);
    port.onDisconnect.addListener(() => kept.delete(port));
    kept.set(port, { messages, listener });
  }

  const connected = (port) => void (port.name === PORT_NAME && handle(port, []));
  for (const event of connectEvents) event.addListener(connected);
  return {
    keep() {
      handle = keepFirst;
    },
    take(handler) {
      handle = handler;
      for (const [port, { messages, listener }] of kept) {
        port.onMessage.removeListener(listener);
        handler(port, messages);
      }
      kept.clear();
    },
  };
}

/** Answer a port whose engine could not be started: our proxy ends with the first answer. */
function refuse(port, messages, error) {
  const answer = ({ uuid }) => port.postMessage(refusal(uuid ?? '', error));
  port.onMessage.addListener(answer);
  [{ uuid: '' }, ...messages].forEach(answer);
}
