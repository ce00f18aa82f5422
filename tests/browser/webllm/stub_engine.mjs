// WebLLM's MLCEngine without a model: loading and the steps of decoding are replaced, the rest is its.

import { MLCEngine, ModelType } from '/webllm/index.js';

/** A language model that repeats the last message or the prompt, word by word. */
class Repeater {
  #text = '';
  #left = [];
  #reason;

  begin(text) {
    this.#text = '';
    this.#left = text.split(' ');
    this.#reason = undefined;
  }

  async step(maxTokens) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    const word = this.#left.shift();
    if (word === 'BREAK') throw new Error('the device is gone');
    this.#text += `${word} `;
    if (this.#left.length === 0) this.#reason = 'stop';
    if (this.getCurRoundCompletionTotalTokens() === maxTokens) this.#reason = 'length';
  }

  triggerStop() {
    this.#reason = 'abort';
  }

  resetChat() {
    this.#text = '';
  }

  stopped = () => this.#reason !== undefined;
  getMessage = () => this.#text;
  getFinishReason = () => this.#reason;
  getCurRoundCompletionTotalTokens = () => this.#text.split(' ').length - 1;
  getCurRoundDecodingTotalTokens = () => this.getCurRoundCompletionTotalTokens();
  getCurRoundPrefillTotalTokens = () => 7;
  getCurRoundPrefillTotalTime = () => 0.25;
  getCurRoundDecodingTotalTime = () => 0.5;
  getCurRoundPrefillTokensPerSec = () => 28;
  getCurRoundDecodingTokensPerSec = () => 2;
  getCurRoundGrammarInitTotalTime = () => 0;
  getCurRoundGrammarPerTokenTotalTime = () => 0;
  getCurRoundLatencyBreakdown = () => ({ totalTime: [0.5] });
  getTokenLogprobArray = () => [];
  setSeed = () => {};
  forwardTokensAndSample = async (inputIds) => inputIds.at(-1) + 1;
  runtimeStatsText = () => 'prefill: 28.0000 tokens/sec, decoding: 2.0000 tokens/sec';
  dispose = () => {};
  sync = async () => {};
}

/** An encoder whose vectors are the lengths of the texts. */
class Lengths {
  embedStep = async (input) => [input].flat().map((text) => [text.length]);
  getCurRoundEmbedTotalTokens = () => 3;
  getCurRoundEmbedTokensPerSec = () => 12;
  dispose = () => {};
  sync = async () => {};
}

/** What the requests for one model wait in. */
class Lock {
  #waiting = Promise.resolve();

  async acquire() {
    const { promise, resolve } = Promise.withResolvers();
    const before = this.#waiting;
    this.#waiting = before.then(() => promise);
    await before;
    this.release = resolve;
  }
}

export class StubEngine extends MLCEngine {
  async reloadInternal(modelId, chatOpts) {
    const record = this.appConfig.model_list.find(({ model_id: id }) => id === modelId);
    if (record === undefined) return super.reloadInternal(modelId, chatOpts);
    for (const progress of [0, 0.5, 1]) {
      this.initProgressCallback?.({ progress, timeElapsed: progress, text: `Loading ${modelId}` });
    }
    const isEncoder = record.model_type === ModelType.embedding;
    this.loadedModelIdToPipeline.set(modelId, isEncoder ? new Lengths() : new Repeater());
    this.loadedModelIdToChatConfig.set(modelId, chatOpts ?? {});
    this.loadedModelIdToModelType.set(modelId, record.model_type ?? ModelType.LLM);
    this.loadedModelIdToLock.set(modelId, new Lock());
  }

  getModelStates(requestName, modelType, modelId) {
    const ids = [...this.loadedModelIdToPipeline.keys()];
    const id = modelId ?? (ids.length === 1 ? ids[0] : undefined);
    const model = this.loadedModelIdToPipeline.get(id);
    const kind = modelType === ModelType.embedding ? Lengths : Repeater;
    if (model instanceof kind) return [id, model, this.loadedModelIdToChatConfig.get(id)];
    return super.getModelStates(requestName, modelType, modelId); // which throws
  }

  async prefill(input, pipeline, _chatConfig, config) {
    pipeline.begin(input.prompt ?? input.messages.at(-1).content);
    await pipeline.step(config.max_tokens);
  }

  async decode(pipeline, config) {
    await pipeline.step(config.max_tokens);
  }
}
