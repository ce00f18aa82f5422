// The worker of ServiceWorkerMLCEngine; start.mjs tells the options that its URL may have.
// It answers messages only: what pages fetch goes past it.

import { openInbox, refusal, startEngine } from './start.mjs?v=__BUILD__';
import { libraries } from './static_libraries.mjs?v=__BUILD__';

const inbox = openInbox();
let started = start();

addEventListener('install', () => skipWaiting());
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
// Until Python says itself how long a message takes.
addEventListener('message', (event) => event.waitUntil(started));

async function start() {
  try {
    await startEngine(inbox, 'ServiceWorkerMLCEngineHandler', libraries);
  } catch (error) {
    console.error(error);
    refuseThenRetry(error);
  }
}

/** Refuse what has waited; the next request starts the engine again, as the cause may be gone. */
function refuseThenRetry(error) {
  inbox.take((event) => refuse(event, error));
  inbox.take((event) => {
    if (event.data?.kind === 'keepAlive') {
      refuse(event, error);
    } else {
      inbox.keep(event);
      event.waitUntil((started = start()));
    }
  });
}

/** Answer a message, and a heartbeat also for the requests that its page waits for. */
function refuse({ data, source }, error) {
  for (const uuid of [data?.uuid ?? '', ...(data?.content?.pending ?? [])]) {
    source.postMessage(refusal(uuid, error));
  }
}
