// What the cases need to ask and to check.

export const MODEL = 'Llama-Storyteller-7M-q4f16_1-MLC'; // the embedded model
export const STORY = 'Tell me a story about a brave little fox.';
export const GREEDY = { temperature: 0, max_tokens: 12 };
export const LONG = { ...GREEDY, max_tokens: 2000, ignore_eos: true };

/** Throw unless `condition` holds; `found` is shown. */
export function check(condition, found) {
  if (!condition) throw new Error(`not as expected: ${JSON.stringify(found)}`);
}

/** Throw unless both have the same JSON. */
export function same(found, wanted) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (left !== right) throw new Error(`${left} is not ${right}`);
}

/** Return what a promise is rejected with. */
export async function rejection(promise) {
  let value;
  try {
    value = await promise;
  } catch (reason) {
    return reason;
  }
  throw new Error(`nothing was thrown, but returned: ${JSON.stringify(value)}`);
}

/** Throw unless a promise is rejected with a string that begins with `name: ` and has `text` in it. */
export async function rejectsWith(promise, name, text = '') {
  const reason = await rejection(promise);
  check(typeof reason === 'string' && reason.startsWith(`${name}: `) && reason.includes(text), reason);
}

/** Return a chat request. */
export function ask(text, fields = {}) {
  return { messages: [{ role: 'user', content: text }], ...fields };
}

/** Read a stream to its end. */
export async function chunksOf(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

/** Return the text in chunks of a chat or a completion. */
export function textOf(chunks) {
  return chunks.flatMap(({ choices }) => choices).map(({ delta, text }) => delta?.content ?? text ?? '').join('');
}

/** Return the text of a reply to STORY. */
export async function answer(engine, fields) {
  const { choices } = await engine.chat.completions.create(ask(STORY, { ...GREEDY, ...fields }));
  return choices[0].message.content;
}

/** Throw unless a request is answered, as when nothing holds the model. */
export async function isFree(engine) {
  check((await answer(engine, { max_tokens: 2 })).length > 0, 'an answer');
}

/** Return a function that makes something at its first call. */
export function once(make) {
  let made;
  return () => (made ??= make());
}
