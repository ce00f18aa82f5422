// A worker of WebLLM: its own handler, unchanged, around the engine without models.

import { WebWorkerMLCEngineHandler } from '/webllm/index.js';
import { StubEngine } from './stub_engine.mjs';

const handler = new WebWorkerMLCEngineHandler();
handler.engine = new StubEngine({ initProgressCallback: handler.engine.getInitProgressCallback() });
onmessage = (event) => handler.onmessage(event);
