// Boots as the engine's service worker does, but serves tests/support/scripted_engine.py instead.
// With another `?version=` in its address it is another version, which takes this one's place.

import { boot } from '/worker/boot.mjs';
import { openInbox } from '/worker/start.mjs';

const inbox = openInbox();
const started = start();

addEventListener('install', () => skipWaiting());
addEventListener('message', (event) => event.waitUntil(started));

async function start() {
  const [{ py }, source] = await Promise.all([
    boot({ worker: { takeMessages: inbox.take } }),
    fetch('/tests/support/scripted_engine.py').then((response) => response.text()),
  ]);
  py.FS.writeFile('scripted_engine.py', source);
  py.runPython(`
from py_engine.rpc import worker_main
from py_engine.rpc.service_worker_handler import ServiceWorkerMLCEngineHandler
from scripted_engine import ScriptedEngine

worker_main.start(ServiceWorkerMLCEngineHandler(ScriptedEngine(seconds_per_word=0.005)))
`);
}
