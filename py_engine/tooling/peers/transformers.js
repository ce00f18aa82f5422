// Measures transformers.js with an ONNX model; see bench_peers.py for what each figure is.
export async function measure({ url, model, promptTokens, nTokens, mostDecodeSeconds, isAgain }) {
    const started = performance.now();
    const { AutoModelForCausalLM, AutoTokenizer, InterruptableStoppingCriteria, Tensor, env } =
        await import(`${url}/peers/@huggingface/transformers/dist/transformers.js`);
    env.allowLocalModels = false;
    env.remoteHost = `${url}/peer-models/`;
    env.remotePathTemplate = '{model}/';
    env.backends.onnx.wasm.wasmPaths = `${url}/peers/onnxruntime-web/dist/`;
    const began = performance.now();
    const options = { device: 'webgpu', dtype: 'q4', use_external_data_format: true };
    // As its pipelines do: a model that answers texts has a tokenizer.
    const [decoder] = await Promise.all([
        AutoModelForCausalLM.from_pretrained(model, options), AutoTokenizer.from_pretrained(model),
    ]);
    const loaded = performance.now();
    if (isAgain) return { load_again_s: (loaded - began) / 1000 };
    // One after the other: the time of the prompt, of the first token and of each that follows.
    async function ask(token, max_new_tokens) {
        const enough = new InterruptableStoppingCriteria();
        const times = [];
        const streamer = {
            put() {
                times.push(performance.now());
                if (times.length > 2 && times.at(-1) - times[1] > 1000 * mostDecodeSeconds) enough.interrupt();
            },
            end() {},
        };
        const ofPrompt = (value) =>
            new Tensor('int64', new BigInt64Array(promptTokens).fill(value), [1, promptTokens]);
        await decoder.generate({
            inputs: ofPrompt(token), attention_mask: ofPrompt(1n), max_new_tokens, do_sample: false,
            streamer, stopping_criteria: enough,
        });
        return times;
    }
    const before = await gpuCounts.everywhere();
    await ask(1n, 1);
    const answered = performance.now();
    const warm = await gpuCounts.everywhere();
    const times = await ask(2n, 1 + nTokens);
    const after = await gpuCounts.everywhere();
    await gpuCounts.everywhere(true);
    const nulls = await ask(3n, 1 + nTokens);
    const decodeMs = ([, first, ...others]) => (others.at(-1) - first) / others.length;
    const firstTokenMs = times[1] - times[0];
    return {
        library_s: (began - started) / 1000,
        load_s: (loaded - began) / 1000,
        first_answer_s: (answered - began) / 1000,
        prompt_tokens: promptTokens,
        first_token_s: firstTokenMs / 1000,
        prefill_tokens_per_s: 1000 * promptTokens / firstTokenMs,
        decode_tokens_per_s: 1000 / decodeMs(times),
        decoded_tokens: times.length - 2,
        null_ms: decodeMs(nulls),
        counts: [before, warm, after],
        where: 'WebGPU',
    };
}
