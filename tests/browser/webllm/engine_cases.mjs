// What an app of WebLLM does with a loaded engine, whichever of its clients it has.

import { answer, ask, check, chunksOf, GREEDY, isFree, LONG, MODEL, rejection, rejectsWith, same, STORY, textOf } from './common.mjs';

const USAGE_EXTRA = [
  'e2e_latency_s', 'prefill_tokens_per_s', 'decode_tokens_per_s', 'time_to_first_token_s',
  'time_per_output_token_s',
];

/** Cases for the engine that `single()` resolves to, which has loaded the embedded model. */
export const engineCases = (single) => ({
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
});
