// WebLLM's WebWorkerMLCEngine and our web worker.

import * as webllm from '/webllm/index.js';
import { answer, ask, check, chunksOf, GREEDY, isFree, MODEL, once, rejection, rejectsWith, same, STORY, textOf } from './common.mjs';
import { engineCases } from './engine_cases.mjs';
import { requestCases } from './request_cases.mjs';

const FOLDER = `${location.origin}/models/${MODEL}/`;

// The line that an app changes.
const newWorker = () => new Worker('/worker/web_worker.mjs', { type: 'module' });

const record = (id, fields = {}) => ({ model: FOLDER, model_id: id, model_lib: 'ignored.wasm', ...fields });
const appConfig = {
  cacheBackend: 'cache',
  model_list: [
    record('first'),
    record('second', { overrides: { context_window_size: 64 } }),
    { model: `${location.origin}/test-models/tiny-bert/`, model_id: 'tiny-bert', model_lib: '', model_type: webllm.ModelType.embedding },
  ],
};

/** An engine with the embedded model, for most cases. */
const single = once(() => webllm.CreateWebWorkerMLCEngine(newWorker(), MODEL));

/** An engine with two language models and one for embeddings. */
const several = once(() => webllm.CreateWebWorkerMLCEngine(
  newWorker(), ['first', 'second', 'tiny-bert'], { appConfig }, [{ temperature: 0 }, { temperature: 0 }, {}],
));

const ownCases = {
  async load_with_progress() {
    const reports = [];
    const initProgressCallback = (report) => reports.push(report);
    const worker = newWorker();
    const engine = await webllm.CreateWebWorkerMLCEngine(worker, MODEL, { initProgressCallback, logLevel: 'INFO' });
    check(engine instanceof webllm.WebWorkerMLCEngine, engine);
    same(engine.modelId, [MODEL]);
    const last = reports.at(-1);
    same(last.progress, 1);
    check(/^Finish loading on WebGPU - /.test(last.text), last);
    for (const { progress, timeElapsed, text } of reports) {
      check(progress >= 0 && progress <= 1 && timeElapsed >= 0 && text.length > 0, { progress, timeElapsed, text });
    }
    same(engine.getInitProgressCallback(), initProgressCallback);
    worker.terminate();
  },

  /** Returns the vectors, for the test to compare. */
  async embeddings(texts) {
    const engine = await several();
    const reply = await engine.embeddings.create({ input: texts, model: 'tiny-bert' });
    same([reply.object, reply.model, reply.data.length], ['list', 'tiny-bert', texts.length]);
    check(reply.usage.extra.prefill_tokens_per_s > 0 && reply.usage.prompt_tokens > 0, reply.usage);
    const one = await engine.embedding({ input: texts[0], model: 'tiny-bert' });
    same(one.data[0].embedding.length, reply.data[0].embedding.length);
    await rejectsWith(engine.embeddings.create({ input: '', model: 'tiny-bert' }), 'EmbeddingInputEmptyError');
    await rejectsWith(engine.embeddings.create({ input: 'x', model: 'first' }), 'EmbeddingUnsupportedModelError', 'first');
    return reply.data.map(({ embedding }) => embedding);
  },

  async several_models() {
    const engine = await several();
    const [first, second, vectors] = await Promise.all([
      answer(engine, { model: 'first' }),
      answer(engine, { model: 'second' }),
      engine.embeddings.create({ input: 'A dog ran.', model: 'tiny-bert' }),
    ]);
    same(first, second);
    same(await engine.getMessage('second'), first);
    same(vectors.data.length, 1);
    const streams = await Promise.all(['first', 'second'].map(
      (model) => engine.chat.completions.create(ask(STORY, { ...GREEDY, model, stream: true })),
    ));
    const texts = await Promise.all(streams.map(async (stream) => textOf(await chunksOf(stream))));
    same(texts, [first, first]);
    check(/tokens\/sec/.test(await engine.runtimeStatsText('second')), 'runtimeStatsText');
    await engine.resetChat(false, 'second');
    check(await engine.forwardTokensAndSample([1, 2, 3], true, 'second') >= 0, 'a token');
    await engine.resetChat(true, 'no-such-model'); // WebLLM does nothing then
  },

  async selection_of_a_model() {
    const engine = await several();
    const unclear = await rejection(engine.chat.completions.create(ask(STORY)));
    same(unclear.name, 'UnclearModelToUseError'); // WebLLM's client selects by itself
    const unknown = await rejection(engine.chat.completions.create(ask(STORY, { model: 'third' })));
    same(unknown.name, 'SpecifiedModelNotFoundError');
    await rejectsWith(engine.chat.completions.create(ask(STORY, { model: 'tiny-bert' })), 'IncorrectPipelineLoadedError');
    await rejectsWith(engine.getMessage(), 'UnclearModelToUseError');
    await rejectsWith(engine.getMessage('third'), 'SpecifiedModelNotFoundError');
    await rejectsWith(engine.resetChat(), 'UnclearModelToUseError');
    await rejectsWith(answer(engine, { model: 'second', messages: ask('dog '.repeat(80)).messages }), 'ContextWindowSizeExceededError');
  },

  async before_and_after_a_load() {
    const worker = newWorker();
    const engine = new webllm.WebWorkerMLCEngine(worker);
    same((await rejection(engine.chat.completions.create(ask(STORY)))).name, 'WorkerEngineModelNotLoadedError');
    await rejectsWith(engine.getMessage(), 'ModelNotLoadedError');
    await engine.resetChat();
    check(await engine.getMaxStorageBufferBindingSize() > 0, 'without a model');
    await rejectsWith(engine.reload('no-such-model'), 'ModelNotFoundError', 'no-such-model');
    await rejectsWith(engine.reload([MODEL, MODEL]), 'ReloadModelIdNotUniqueError');
    await rejectsWith(engine.reload([MODEL], [{}, {}]), 'ReloadArgumentSizeUnmatchedError');
    await engine.reload(MODEL, { temperature: 0 });
    const text = await answer(engine, { temperature: null });
    same(text, await answer(engine, { temperature: 0 }));
    await engine.unload();
    same((await rejection(engine.chat.completions.create(ask(STORY)))).name, 'WorkerEngineModelNotLoadedError');
    await engine.reload(MODEL);
    same(await answer(engine), text);
    worker.terminate();
  },

  async load_that_is_given_up() {
    const worker = newWorker();
    const engine = new webllm.WebWorkerMLCEngine(worker);
    const unloaded = new Promise((resolve) => {
      engine.setInitProgressCallback(() => resolve(engine.unload()));
    });
    await engine.reload(MODEL); // as in WebLLM: nothing is thrown, nothing is loaded
    await unloaded;
    await rejectsWith(engine.getMessage(), 'ModelNotLoadedError');
    engine.setInitProgressCallback(undefined);
    await engine.reload(MODEL);
    await isFree(engine);
    worker.terminate();
  },

  async settings() {
    const worker = newWorker();
    const engine = new webllm.WebWorkerMLCEngine(worker, { logLevel: 'ERROR' });
    await rejectsWith(engine.reload('own'), 'ModelNotFoundError');
    engine.setAppConfig({ model_list: [record('own')] });
    await engine.reload('own');
    check((await answer(engine)).length > 12, 'an answer of `own`');
    engine.setAppConfig({ ...webllm.prebuiltAppConfig, model_list: [...webllm.prebuiltAppConfig.model_list, record('added')] });
    await engine.reload('added');
    await rejectsWith(engine.reload('own'), 'ModelNotFoundError');
    for (const level of ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'SILENT']) engine.setLogLevel(level);
    worker.postMessage({ kind: 'customRequest', uuid: crypto.randomUUID(), content: { requestName: 'x', requestMessage: 'y' } });
    same(typeof await engine.getGPUVendor(), 'string');
    worker.terminate();
  },

  async worker_that_is_replaced() {
    const first = newWorker();
    const engine = await webllm.CreateWebWorkerMLCEngine(first, MODEL, {}, { temperature: 0 });
    const text = await answer(engine, { temperature: null });
    first.terminate();
    const second = newWorker();
    second.onmessage = first.onmessage;
    engine.worker = second;
    same(await answer(engine, { temperature: null }), text); // loaded again, with its options
    const chunks = await chunksOf(await engine.chat.completions.create(ask(STORY, { ...GREEDY, stream: true })));
    same(textOf(chunks), text);
    second.terminate();
  },
};

export const cases = { ...engineCases(single), ...requestCases(single), ...ownCases };
