// The fields of requests that do more than to choose how long and how random a reply is.

import { answer, ask, check, chunksOf, GREEDY, rejectsWith, same, STORY } from './common.mjs';

const TOOLS = [{
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Tells the weather of a city',
    parameters: { type: 'object', properties: { city: { enum: ['Rome', 'Paris'] } }, required: ['city'] },
  },
}];

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
});
