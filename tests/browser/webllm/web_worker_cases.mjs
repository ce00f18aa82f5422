// Cases of test_webllm_client.py: WebLLM's own client, unchanged, drives our web worker.

import * as webllm from '/webllm/index.js';
import { ask, check, chunksOf, rejection, rejectsWith, same, textOf } from './assert.mjs';

const MODEL = 'Llama-Storyteller-7M-q4f16_1-MLC';
const FOLDER = `${location.origin}/models/${MODEL}/`;
const STORY = 'Tell me a story about a brave little fox.';
const GREEDY = { temperature: 0, max_tokens: 12 };
const LONG = { ...GREEDY, max_tokens: 2000, ignore_eos: true };
const USAGE_EXTRA = [
  'e2e_latency_s', 'prefill_tokens_per_s', 'decode_tokens_per_s', 'time_to_first_token_s',
  'time_per_output_token_s',
];

const TOOLS = [{
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Tells the weather of a city',
    parameters: { type: 'object', properties: { city: { enum: ['Rome', 'Paris'] } }, required: ['city'] },
  },
}];

// The line that an app changes.
const newWorker = () => new Worker('/worker/web_worker.mjs', { type: 'module' });

const record = (id, fields = {}) => ({ model: FOLDER, model_id: id, model_lib: 'ignored.wasm', ...fields });
const appConfig = {
  cacheBackend: 'cache',
  model_list: [
    record('first'),
    record('second', { overrides: { context_window_size: 64 } }),
    { model: `${location.origin}/test-models/`, model_id: 'tiny-bert', model_lib: '', model_type: webllm.ModelType.embedding },
  ],
};

const once = (make) => {
  let made;
  return () => (made ??= make());
};

/** An engine with the embedded model, for most cases. */
const single = once(() => webllm.CreateWebWorkerMLCEngine(newWorker(), MODEL));

/** An engine with two language models and one for embeddings. */
const several = once(() => webllm.CreateWebWorkerMLCEngine(
  newWorker(), ['first', 'second', 'tiny-bert'], { appConfig }, [{ temperature: 0 }, { temperature: 0 }, {}],
));

async function answer(engine, fields) {
  const { choices } = await engine.chat.completions.create(ask(STORY, { ...GREEDY, ...fields }));
  return choices[0].message.content;
}

/** The next request is answered, so nothing holds the model. */
async function isFree(engine) {
  same((await answer(engine, { max_tokens: 2 })).length > 0, true);
}

export const cases = {
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

  async chat() {
    const engine = await single();
    const reply = await engine.chat.completions.create(ask(STORY, GREEDY));
    same([reply.object, reply.model, reply.choices.length], ['chat.completion', MODEL, 1]);
    check(typeof reply.id === 'string' && Number.isInteger(reply.created), reply);
    const [{ index, finish_reason: reason, logprobs, message }] = reply.choices;
    same([index, reason, logprobs, message.role], [0, 'length', null, 'assistant']);
    check(message.content.length > 12, message);
    same(reply.usage.completion_tokens, GREEDY.max_tokens);
    same(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens);
    for (const name of USAGE_EXTRA) check(reply.usage.extra[name] > 0, [name, reply.usage.extra]);
    same(await engine.getMessage(), message.content);
    same((await engine.chatCompletion(ask(STORY, GREEDY))).choices[0].message.content, message.content);
  },

  async chat_of_several_rounds() {
    const engine = await single();
    const messages = [{ role: 'system', content: 'You are kind.' }, { role: 'user', content: STORY }];
    const first = await engine.chat.completions.create({ messages, ...GREEDY });
    messages.push(first.choices[0].message, { role: 'user', content: 'What is its name?' });
    const second = await engine.chat.completions.create({ messages, ...GREEDY });
    check(second.choices[0].message.content !== first.choices[0].message.content, second);
    check(second.usage.completion_tokens > 0, second.usage);
  },

  async stream() {
    const engine = await single();
    const expected = await answer(engine);
    const options = { stream: true, stream_options: { include_usage: true } };
    const chunks = await chunksOf(await engine.chat.completions.create(ask(STORY, { ...GREEDY, ...options })));
    same(textOf(chunks), expected);
    check(chunks.every(({ object, model, id }) => object === 'chat.completion.chunk' && model === MODEL && id), chunks[0]);
    const [end, last] = chunks.slice(-2);
    same(end.choices[0].finish_reason, 'length');
    same([last.choices, last.usage.completion_tokens], [[], GREEDY.max_tokens]);
    for (const name of USAGE_EXTRA) check(last.usage.extra[name] > 0, [name, last.usage.extra]);
  },

  async stream_that_is_left() {
    const engine = await single();
    for await (const _chunk of await engine.chat.completions.create(ask(STORY, { ...LONG, stream: true }))) break;
    await isFree(engine);
    const unread = await engine.chat.completions.create(ask(STORY, { ...LONG, stream: true }));
    await unread.return();
    await isFree(engine);
    const thrown = await engine.chat.completions.create(ask(STORY, { ...LONG, stream: true }));
    await thrown.next();
    same(await rejection(thrown.throw('enough')), 'enough');
    await isFree(engine);
    same(await unread.next(), { value: undefined, done: true });
  },

  async stream_that_is_left_while_a_chunk_is_on_its_way() {
    const engine = await single();
    const stream = await engine.chat.completions.create(ask(STORY, { ...LONG, stream: true }));
    const [first] = await Promise.all([stream.next(), stream.return()]);
    check(first.value.choices.length === 1, first);
    await isFree(engine);
  },

  async streams_side_by_side() {
    const engine = await single();
    const expected = await answer(engine);
    const begin = () => engine.chat.completions.create(ask(STORY, { ...GREEDY, stream: true }));
    const streams = await Promise.all([begin(), begin(), begin()]);
    const texts = await Promise.all(streams.map(async (stream) => textOf(await chunksOf(stream))));
    same(texts, [expected, expected, expected]);
  },

  async completions() {
    const engine = await single();
    const request = { prompt: 'Once upon a time', ...GREEDY };
    const reply = await engine.completions.create(request);
    same([reply.object, reply.model, reply.choices[0].finish_reason], ['text_completion', MODEL, 'length']);
    check(reply.choices[0].text.length > 12, reply);
    const chunks = await chunksOf(await engine.completions.create({
      ...request, stream: true, stream_options: { include_usage: true },
    }));
    same(textOf(chunks), reply.choices[0].text);
    same(chunks.at(-1).usage.completion_tokens, GREEDY.max_tokens);
    for await (const _chunk of await engine.completions.create({ prompt: 'Once', ...LONG, stream: true })) break;
    const echoed = await engine.completion({ ...request, echo: true });
    same(echoed.choices[0].text, `Once upon a time${reply.choices[0].text}`);
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

  async interrupt() {
    const engine = await single();
    let text = '';
    let reason;
    for await (const { choices: [choice] } of await engine.chat.completions.create(ask(STORY, { ...LONG, stream: true }))) {
      if (text === '') engine.interruptGenerate();
      text += choice.delta.content ?? '';
      reason = choice.finish_reason ?? reason;
    }
    same(reason, 'abort');
    check(text.length > 0, text);
    const whole = engine.chat.completions.create(ask(STORY, LONG));
    while ((await engine.getMessage()) === text) await null; // until the second reply has begun
    engine.interruptGenerate();
    same((await whole).choices[0].finish_reason, 'abort');
    engine.interruptGenerate(); // with nothing to interrupt
    same((await answer(engine)).length > 12, true);
  },

  async reset_and_statistics() {
    const engine = await single();
    await answer(engine);
    const speeds = /^prefill: ([\d.]+) tokens\/sec, decoding: ([\d.]+) tokens\/sec$/;
    const [, prefill, decode] = speeds.exec(await engine.runtimeStatsText());
    check(Number(prefill) > 0 && Number(decode) > 0, [prefill, decode]);
    await engine.resetChat(true);
    same(speeds.exec(await engine.runtimeStatsText())[1], prefill);
    await engine.resetChat();
    check(!(Number(speeds.exec(await engine.runtimeStatsText())[1]) > 0), 'statistics that were reset');
  },

  async tokens_one_by_one() {
    const engine = await single();
    const sequence = async () => {
      await engine.resetChat();
      const tokens = [await engine.forwardTokensAndSample([1, 500, 600], true)];
      while (tokens.length < 3) tokens.push(await engine.forwardTokensAndSample(tokens.slice(-1), false));
      return tokens;
    };
    for (const token of await sequence()) check(Number.isInteger(token) && token >= 0, token);
    await rejectsWith(engine.forwardTokensAndSample([], true), 'ConfigValueError', 'input_ids');
    await engine.resetChat();
  },

  async gpu() {
    const engine = await single();
    check(await engine.getMaxStorageBufferBindingSize() >= 2 ** 27, 'bytes');
    same(typeof await engine.getGPUVendor(), 'string');
  },

  async json() {
    const engine = await single();
    const schema = JSON.stringify({
      type: 'object',
      properties: { name: { enum: ['fox', 'dog'] }, age: { type: 'integer', minimum: 1, maximum: 9 } },
      required: ['name', 'age'],
    });
    const fields = { response_format: { type: 'json_object', schema }, max_tokens: 60 };
    const animal = JSON.parse(await answer(engine, fields));
    check(['fox', 'dog'].includes(animal.name) && animal.age >= 1 && animal.age <= 9, animal);
    const grammar = 'root ::= "yes" | "no"';
    const word = await answer(engine, { response_format: { type: 'grammar', grammar } });
    check(['yes', 'no'].includes(word), word);
    await rejectsWith(answer(engine, { response_format: { type: 'text', schema } }), 'InvalidResponseFormatError');
  },

  async tools() {
    const engine = await single();
    const tool_choice = { type: 'function', function: { name: 'get_weather' } };
    const request = ask('How is the weather in Rome?', { tools: TOOLS, tool_choice, temperature: 0, max_tokens: 100 });
    const [{ message, finish_reason: reason }] = (await engine.chat.completions.create(request)).choices;
    const [call] = message.tool_calls;
    same([reason, call.type, call.function.name], ['tool_calls', 'function', 'get_weather']);
    check(['Rome', 'Paris'].includes(JSON.parse(call.function.arguments).city), call);
    const parts = (await chunksOf(await engine.chat.completions.create({ ...request, stream: true })))
      .flatMap(({ choices: [choice] }) => choice.delta.tool_calls ?? []);
    same(parts.map((part) => part.function.arguments ?? '').join(''), call.function.arguments);
    const messages = [
      ...request.messages, message, { role: 'tool', tool_call_id: call.id, content: 'sunny' },
    ];
    const after = await engine.chat.completions.create({ messages, tools: TOOLS, ...GREEDY });
    check(after.usage.completion_tokens > 0, after);
  },

  async logprobs() {
    const engine = await single();
    const request = ask(STORY, { ...GREEDY, max_tokens: 3, logprobs: true, top_logprobs: 2 });
    const reply = await engine.chat.completions.create(request);
    const entries = reply.choices[0].logprobs.content;
    same(entries.map(({ token }) => token).join(''), reply.choices[0].message.content);
    for (const { token, logprob, bytes, top_logprobs: rivals } of entries) {
      same([rivals.length, rivals[0].token], [2, token]);
      check(logprob <= 0 && bytes.length > 0, { logprob, bytes });
    }
    const chunks = await chunksOf(await engine.chat.completions.create({ ...request, stream: true }));
    const streamed = chunks.flatMap(({ choices: [choice] }) => choice.logprobs?.content ?? []);
    same(streamed.map(({ token }) => token), entries.map(({ token }) => token));
    const biased = await engine.chat.completions.create({ ...request, logit_bias: { 500: 100 } });
    check(biased.choices[0].logprobs.content.every(({ token }, _, [first]) => token === first.token), biased);
  },

  async seed_and_several_choices() {
    const engine = await single();
    const fields = { temperature: 1, seed: 42, max_tokens: 8 };
    same(await answer(engine, fields), await answer(engine, fields));
    const reply = await engine.chat.completions.create(ask(STORY, { ...fields, n: 2 }));
    same(reply.choices.map(({ index }) => index), [0, 1]);
    same(reply.usage.completion_tokens, 16);
    check(reply.choices[0].message.content !== reply.choices[1].message.content, reply.choices);
    await rejectsWith(answer(engine, { seed: 0.5 }), 'SeedTypeError');
  },

  async other_fields() {
    const engine = await single();
    const nothing = Object.fromEntries([
      'frequency_penalty', 'logit_bias', 'logprobs', 'max_tokens', 'n', 'presence_penalty', 'repetition_penalty',
      'seed', 'stop', 'stream', 'stream_options', 'temperature', 'top_logprobs', 'top_p', 'model',
    ].map((name) => [name, null]));
    check((await answer(engine, { ...nothing, max_tokens: 2 })).length > 0, 'null means absent');
    const text = await answer(engine);
    const stop = text.slice(6, 10);
    same(await answer(engine, { stop }), text.slice(0, text.indexOf(stop)));
    check((await answer(engine, { presence_penalty: 2, frequency_penalty: 2, repetition_penalty: 1.5, top_p: 0.5 })).length > 0, '');
    const extra_body = { enable_thinking: false, enable_latency_breakdown: true };
    const { usage } = await engine.chat.completions.create(ask(STORY, { ...GREEDY, extra_body }));
    same(usage.extra.latencyBreakdown.totalTime.length > 0, true);
  },

  async errors() {
    const engine = await single();
    await rejectsWith(answer(engine, { messages: ask('dog '.repeat(5000)).messages }), 'ContextWindowSizeExceededError');
    await rejectsWith(answer(engine, { temperature: -1 }), 'NonNegativeError', 'temperature');
    await rejectsWith(answer(engine, { messages: [] }), 'ConfigValueError', 'messages');
    await rejectsWith(answer(engine, { messages: [{ role: 'assistant', content: 'hi' }] }), 'MessageOrderError');
    await rejectsWith(engine.embeddings.create({ input: 'hi' }), 'EmbeddingUnsupportedModelError');
    await rejectsWith(engine.completions.create({ prompt: 'hi', suffix: 'x' }), 'UnsupportedFieldsError');
    await rejectsWith(engine.completions.create({ prompt: 'hi', stream: true, suffix: 'x' }), 'UnsupportedFieldsError');
    await rejectsWith(engine.chat.completions.create(ask(STORY, { stream: true, top_p: 2 })), 'RangeError', 'top_p');
    await isFree(engine);
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
