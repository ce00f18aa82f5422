// WebLLM's ServiceWorkerMLCEngine and our service worker.

import * as webllm from '/webllm/index.js';
import { answer, check, chunksOf, GREEDY, ask, MODEL, once, same, STORY, textOf } from './common.mjs';
import { engineCases } from './engine_cases.mjs';

// The line that an app changes.
const register = once(() => navigator.serviceWorker.register('/service_worker.mjs', { type: 'module' }));

/** Wait until this page's messages go to the worker, which WebLLM's client takes for granted. */
const controlled = once(async () => {
  await register();
  while (!navigator.serviceWorker.controller) {
    await new Promise((resolve) => navigator.serviceWorker.addEventListener('controllerchange', resolve, { once: true }));
  }
});

async function create(config, keepAliveMs) {
  await controlled();
  return webllm.CreateServiceWorkerMLCEngine(MODEL, config, undefined, keepAliveMs);
}

const single = once(() => create());

/** Use another engine; the page's latest takes all messages of the worker, so give them back. */
async function aside(config, keepAliveMs, use) {
  await single();
  const { onmessage } = navigator.serviceWorker;
  try {
    return await use(await create(config, keepAliveMs));
  } finally {
    navigator.serviceWorker.onmessage = onmessage;
  }
}

const ownCases = {
  async model_that_is_there_is_not_loaded_again() {
    const reports = [];
    const initProgressCallback = (report) => reports.push(report);
    const text = await aside({ initProgressCallback }, undefined, answer);
    same(reports.map(({ progress }) => progress), [1]);
    check(reports[0].text.startsWith('Finish loading on WebGPU - '), reports);
    same(await answer(await single()), text);
  },

  async heartbeats() {
    const counted = [];
    await aside({}, 20, (engine) => new Promise((resolve) => {
      Object.defineProperty(engine, 'missedHeartbeat', {
        get: () => counted.at(-1) ?? 0,
        set(count) {
          counted.push(count);
          if (counted.slice(-4).join() === '1,0,1,0') resolve();
        },
      });
    }));
  },

  /** Returns the text of a stream. */
  async story() {
    const engine = await single();
    return textOf(await chunksOf(await engine.chat.completions.create(ask(STORY, { ...GREEDY, stream: true }))));
  },
};

export const cases = { ...engineCases(single), ...ownCases };
