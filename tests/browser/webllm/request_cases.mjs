// The fields of requests that do more than to choose how long and how random a reply is.

import { answer, ask, check, chunksOf, GREEDY, MODEL, rejection, rejectsWith, same, STORY, textOf } from './common.mjs';
import { StubEngine } from './stub_engine.mjs';

const TOOLS = [{
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Tells the weather of a city',
    parameters: { type: 'object', properties: { city: { enum: ['Rome', 'Paris'] } }, required: ['city'] },
  },
}];

const format = (fields) => ({ response_format: fields });
const parts = (...content) => ({ messages: [{ role: 'user', content }] });
const text = { type: 'text', text: 'hi' };
const image = { type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } };

// What WebLLM refuses, in the order of its checks.
const REFUSED = [
  parts(image),
  { messages: [{ role: 'user', content: 'hi' }, { role: 'system', content: 'x' }, { role: 'user', content: 'hi' }] },
  { messages: [{ role: 'assistant', content: 'hi' }] },
  { seed: 0.5 },
  format({ type: 'text', schema: '{}' }),
  format({ type: 'json_object', grammar: 'root ::= "a"' }),
  format({ type: 'grammar' }),
  format({ type: 'json_object', structural_tag: '{}' }),
  format({ type: 'structural_tag' }),
  { stream_options: { include_usage: true } },
  { frequency_penalty: 2.1 },
  { presence_penalty: -2.1 },
  { repetition_penalty: 0 },
  { max_tokens: 0 },
  { max_tokens: -1 },
  { top_p: 0 },
  { top_p: 1.1 },
  { temperature: -0.1 },
  { logit_bias: { 5: 101 } },
  { logit_bias: { five: 1 } },
  { top_logprobs: 2 },
  { logprobs: true, top_logprobs: -1 },
];

// What WebLLM refuses and we do.
const ONLY_OURS = [
  parts(text, text), { tools: TOOLS }, { logprobs: true, top_logprobs: 20 },
];

/** Cases for the engine that `single()` resolves to, which has loaded the embedded model. */
export const requestCases = (single) => ({
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

  async resumable() {
    const engine = await single();
    const whole = await answer(engine);
    const extra_body = { resumable: { enabled: true, sessionId: 'npm' } };
    const request = ask(STORY, { ...GREEDY, stream: true, extra_body });
    let text = '';
    for await (const chunk of await engine.chat.completions.create(request)) {
      text += textOf([chunk]);
      if (text.length > 10) break;
    }
    const [session] = await engine.listResumableSessions();
    same([session.sessionId, session.resumable, session.recoveryMode], ['npm', true, 'token_replay']);
    same((await engine.resumeChatCompletion('npm')).recoveredText, text);
    const options = { continueGeneration: true, stream: true };
    const rest = await chunksOf(await engine.resumeChatCompletion('npm', options));
    same(text + textOf(rest), whole);
    const stored = await engine.resumeChatCompletion('npm', options);
    same([stored.recoveredText, stored.recoveryMode], [whole, 'text_only']);
    await engine.deleteResumableSession('npm');
    same(await engine.listResumableSessions(), []);
  },

  async requests_that_webllm_refuses() {
    const engine = await single();
    const theirs = new StubEngine({ appConfig: { model_list: [{ model: '', model_id: MODEL, model_lib: '' }] } });
    await theirs.reload(MODEL);
    for (const fields of REFUSED) {
      const request = { ...ask('hi'), max_tokens: 1, ...fields };
      const { name } = await rejection(theirs.chatCompletion(request));
      await rejectsWith(engine.chatCompletion(request), name);
    }
    for (const fields of ONLY_OURS) {
      const request = { ...ask('hi'), max_tokens: 1, ...fields };
      await rejection(theirs.chatCompletion(request));
      check((await engine.chatCompletion(request)).usage.completion_tokens === 1, request);
    }
    for (const fields of [{ suffix: 'x' }, { best_of: 2 }, { seed: 0.5 }, { top_p: 2 }, { stream_options: {} }]) {
      const request = { prompt: 'hi', max_tokens: 1, ...fields };
      const { name } = await rejection(theirs.completion(request));
      await rejectsWith(engine.completion(request), name);
    }
  },
});
