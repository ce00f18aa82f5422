// WebLLM's ExtensionServiceWorkerMLCEngine and our extension's background worker.

import * as webllm from '/webllm/index.js';
import { answer, check, MODEL, once, same } from './common.mjs';
import { engineCases } from './engine_cases.mjs';

const NEVER = 1e9;

const create = (config, keepAliveMs) => webllm.CreateExtensionServiceWorkerMLCEngine(MODEL, config, undefined, keepAliveMs);
const single = once(() => create({}, 20)); // its keep-alive messages come among all others

const ownCases = {
  async model_that_is_there_is_not_loaded_again() {
    const text = await answer(await single());
    const reports = [];
    const engine = await create({ initProgressCallback: (report) => reports.push(report) });
    same(reports.map(({ progress }) => progress), [1]);
    check(reports[0].text.startsWith('Finish loading on WebGPU - '), reports);
    same(await answer(engine), text);
  },

  /** `killWorker()` is the test's: it ends the worker as the browser does. */
  async worker_that_was_killed() {
    const disconnected = Promise.withResolvers();
    const engine = await create({ onDisconnect: disconnected.resolve }, NEVER);
    const text = await answer(engine);
    await globalThis.killWorker();
    await disconnected.promise;
    same(await answer(await create({}, NEVER)), text);
  },
};

export const cases = { ...engineCases(single), ...ownCases };
