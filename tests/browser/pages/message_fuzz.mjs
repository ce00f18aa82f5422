// Sends a worker thousands of random messages, right and wrong, and counts what comes back.
// `beginFuzz(seed)`, `fuzzPart(count)` and `endFuzz()` are called by tests/browser/test_message_fuzz.py.

const MODEL = 'Llama-Storyteller-7M-q4f16_1-MLC';
const AT_ONCE = 12;
const LONGEST_MS = 60_000;
const NEVER_ANSWERED = new Set(['setLogLevel', 'setAppConfig', 'customRequest']);

const [ANSWERED, SILENT] = [1, 2];
const numberOf = (uuid) => Number(uuid?.split(' ')[1]);

let random;

function mulberry32(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const below = (n) => Math.floor(random() * n);
const pick = (items) => items[below(items.length)];

function cyclic() {
  const value = { a: [] };
  value.a.push(value);
  return value;
}

const nested = (depth) => JSON.parse('['.repeat(depth) + ']'.repeat(depth));

// Values of every kind that postMessage can carry. (What is nested some thousand levels deep never
// arrives: the browser cannot read it, and tells the worker nothing of whose it was.)
const ODD = [
  () => undefined, () => null, () => true, () => 0, () => -1, () => 1.5, () => NaN, () => Infinity,
  () => 2 ** 53, () => 10n ** 30n, () => '', () => 'x', () => '\ud83d', () => '\0',
  () => 'y'.repeat(100_000), () => [], () => [null], () => ['a', 1], () => ({}),
  () => ({ toString: 1, __proto__: null }), () => JSON.parse('{"__proto__": {"x": 1}}'),
  () => new Date(NaN), () => new Date(0), () => new Map([['a', 1]]), () => new Set([1]),
  () => new Uint8Array(9), () => new ArrayBuffer(3), () => new Error('no'), () => /x/g,
  () => new Blob(['x']), cyclic, () => nested(40), () => nested(300),
];

const ODD_IDS = ODD.map((odd) => odd()).filter((odd) => typeof odd === 'string' && odd);

const text = () => pick(['Hi', 'Tell me a story.', '', ' ', '🦊', '<|im_end|>', 'word '.repeat(20)]);
const chat = (fields) => ({
  messages: [{ role: 'user', content: text() }], max_tokens: 1 + below(2), ...fields,
});
const expected = () => (random() < 0.7 ? { modelId: [MODEL] } : {});

let streams = 0;
const opened = [];
function streamId() {
  opened.push(`stream ${streams++}`);
  return opened.at(-1);
}

// Right requests, each as [kind, content].
const RIGHT = [
  () => ['getMessage', {}],
  () => ['runtimeStatsText', { modelId: MODEL }],
  () => ['resetChat', { keepStats: random() < 0.5 }],
  () => ['getMaxStorageBufferBindingSize', null],
  () => ['getGPUVendor', null],
  () => ['getGPUMemory', null],
  () => ['interruptGenerate', null],
  () => ['listResumableSessions', null],
  () => ['deleteResumableSession', { sessionId: 'none' }],
  () => ['modelCache', { action: 'list_models' }],
  () => ['countTokens', { messages: [{ role: 'user', content: text() }] }],
  () => ['forwardTokensAndSample', { inputIds: [1 + below(100)], isPrefill: true }],
  () => ['embedding', { request: { input: text() }, ...expected() }],
  () => ['chatCompletionNonStreaming', { request: chat(), streamId: streamId(), ...expected() }],
  () => ['completionNonStreaming', { request: { prompt: text(), max_tokens: 1 }, ...expected() }],
  () => ['chatCompletionStreamInit', {
    request: chat({ stream: true, max_tokens: 400 }), streamId: streamId(), ...expected(),
  }],
  () => ['completionStreamInit', {
    request: { prompt: text(), stream: true, max_tokens: 400 }, selectedModelId: MODEL, ...expected(),
  }],
  () => ['completionStreamNextChunk', { streamId: pick(opened) ?? 'x' }],
  () => ['completionStreamReturn', { streamId: pick(opened) ?? 'x' }],
  () => ['completionStreamReturn', { streamId: MODEL }],
  () => ['setLogLevel', 'WARN'],
  () => ['customRequest', { requestName: 'x', requestMessage: {} }],
  () => ['keepAlive', pick([null, { pending: [] }, { pending: ['a', 'b'] }])],
  () => ['no such kind', { a: 1 }],
];

/** Put an odd value somewhere: for the content, in it, or in the request in it. */
function damaged([kind, content]) {
  const odd = pick(ODD)();
  if (content === null || typeof content !== 'object' || random() < 0.3) return [kind, odd];
  const target = content.request && random() < 0.6 ? { ...content.request } : { ...content };
  const names = [...Object.keys(target), 'messages', 'stream', 'stop', 'tools', 'n', 'seed', 'model',
    'temperature', 'response_format', 'modelId', 'chatOpts', 'streamId', 'logit_bias'];
  const name = pick(names.filter((each) => each !== 'modelId'));
  if (random() < 0.3) delete target[name];
  else target[name] = odd;
  return [kind, content.request && 'messages' in target ? { ...content, request: target } : target];
}

class Fuzz {
  constructor(worker) {
    this.worker = worker;
    this.waiting = new Map();
    this.states = new Uint8Array(2 ** 17); // of each message; of one size, lest the heap grow
    this.report = { sent: 0, answers: 0, kinds: {}, thrown: {}, twice: [], unasked: [], lost: [] };
    this.held = null;
    this.onAnswer = () => {};
    worker.onmessage = ({ data }) => this.receive(data);
  }

  receive(data) {
    if (data.kind === 'initProgressCallback') return;
    if (data.kind === 'held') {
      this.held(data.content);
      return;
    }
    const { report } = this;
    const waiting = this.waiting.get(data.uuid);
    const number = numberOf(data.uuid);
    const state = this.states[number];
    this.states[number] = ANSWERED;
    // Of a message that cannot be read even this is not known, that it has no answer.
    if (state === SILENT && data.error?.name === 'MessageFormatError') return;
    if (!waiting) {
      (state === ANSWERED ? report.twice : report.unasked).push(JSON.stringify(data));
      return;
    }
    report.answers++;
    if (data.kind === 'throw') {
      const name = data.error?.name ?? 'none';
      report.thrown[name] = (report.thrown[name] ?? 0) + 1;
    }
    this.waiting.delete(data.uuid);
    waiting.resolve(data);
    this.onAnswer();
  }

  ask(kind, content) {
    const uuid = `message ${this.report.sent++}`;
    this.report.kinds[kind] = (this.report.kinds[kind] ?? 0) + 1;
    const message = { kind, uuid, content };
    if (NEVER_ANSWERED.has(kind)) {
      this.states[numberOf(uuid)] = SILENT;
      this.worker.postMessage(message);
      return Promise.resolve();
    }
    const answer = new Promise((resolve) => this.waiting.set(uuid, { resolve, message }));
    this.worker.postMessage(message);
    return answer;
  }

  /** Send what nobody could be answered about. */
  noise() {
    this.report.sent++;
    const odd = pick(ODD);
    this.worker.postMessage(pick([
      () => odd(), () => ({ kind: 'getMessage', uuid: pick(['', null, undefined]) }),
      () => ({ id: 'x', content: odd() }), () => [odd()], () => ({ target: 'other', data: odd() }),
    ])());
  }

  /** Wait until few enough answers are outstanding; fails when one does not come for long. */
  async settle(most) {
    let oldest = '';
    let since = performance.now();
    while (this.waiting.size > most) {
      const isStuck = await Promise.race([
        new Promise((resolve) => { this.onAnswer = () => resolve(false); }),
        new Promise((resolve) => { setTimeout(resolve, 200, true); }),
      ]);
      const [first] = this.waiting.keys();
      if (first !== oldest) {
        oldest = first;
        since = performance.now();
      }
      if (performance.now() - since > LONGEST_MS) throw new Error(`no answer to ${this.shownWaiting()}`);
      if (isStuck) this.closeStreams(); // a request waits behind a stream that nobody reads
    }
  }

  shownWaiting() {
    return [...this.waiting.values()].map(({ message: { kind, uuid, content } }) => {
      try { return `${kind} ${uuid} ${JSON.stringify(content)}`.slice(0, 300); } catch { return kind; }
    }).join('\n');
  }

  closeStreams() {
    for (const streamId of [...opened.splice(0), MODEL, ...ODD_IDS]) {
      void this.ask('completionStreamReturn', { streamId });
    }
  }

  async quiet() {
    this.closeStreams();
    await this.settle(0);
    return new Promise((resolve) => {
      this.held = resolve;
      this.worker.postMessage({ kind: 'customRequest', uuid: '', content: { requestName: 'count' } });
    });
  }

  async part(count) {
    for (const end = this.report.sent + count; this.report.sent < end;) {
      if (random() < 0.1) this.noise();
      else {
        const right = pick(RIGHT)();
        void this.ask(...(random() < 0.45 ? damaged(right) : right));
      }
      if (this.waiting.size >= AT_ONCE) await this.settle(below(AT_ONCE));
    }
    return this.quiet();
  }
}

let fuzz;

globalThis.beginFuzz = async (seed) => {
  random = mulberry32(seed);
  const script = '/tests/browser/pages/counting_worker.py';
  fuzz = new Fuzz(new Worker(`/worker/web_worker.mjs?script=${script}`, { type: 'module' }));
  return (await fuzz.ask('reload', { modelId: [MODEL] })).kind;
};

/** Send `count` messages and wait for the answers; resolves to what the worker still holds. */
globalThis.fuzzPart = (count) => fuzz.part(count);

globalThis.endFuzz = async () => {
  const { content } = await fuzz.ask('chatCompletionNonStreaming', {
    request: { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2, temperature: 0 },
    modelId: [MODEL],
  });
  fuzz.worker.terminate();
  return { ...fuzz.report, lost: [...fuzz.waiting.keys()], last: content.object };
};
