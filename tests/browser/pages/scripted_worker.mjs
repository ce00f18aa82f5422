// Boots as the engine's worker does, but serves tests/support/scripted_engine.py instead.

import { boot } from '/worker/boot.mjs';
import { openInbox } from '/worker/start.mjs';

const inbox = openInbox();
const [{ py }, source] = await Promise.all([
  boot({ worker: { takeMessages: inbox.take } }),
  fetch('/tests/support/scripted_engine.py').then((response) => response.text()),
]);
py.FS.writeFile('scripted_engine.py', source);
py.runPython(`
from py_engine.rpc import worker_main
from py_engine.rpc.handler import WebWorkerMLCEngineHandler
from scripted_engine import ScriptedEngine

worker_main.start(WebWorkerMLCEngineHandler(ScriptedEngine(seconds_per_word=0.002)))
`);
