// Measures wllama with a GGUF file; see bench_peers.py for what each figure is.
export async function measure({ url, model, gpuLayers, threads, context, promptTokens, nTokens, isAgain }) {
    const started = performance.now();
    const { Wllama } = await import(`${url}/peers/@wllama/wllama/esm/index.js`);
    const lines = [];
    const log = (...parts) => lines.push(parts.join(' '));
    const wllama = new Wllama(
        { default: `${url}/peers/@wllama/wllama/esm/wasm/wllama.wasm` },
        { logger: { debug: log, log, warn: log, error: log } });
    const began = performance.now();
    await wllama.loadModelFromUrl(`${url}/peer-models/${model}.gguf`, {
        n_ctx: context, n_threads: threads, n_gpu_layers: gpuLayers, n_parallel: 1, warmup: false,
    });
    const loaded = performance.now();
    if (isAgain) {
        await wllama.exit();
        return { load_again_s: (loaded - began) / 1000 };
    }
    // Each with a letter of its own, so that none begins as one before.
    const ask = async (letter, max_tokens) => {
        const { timings } = await wllama.createCompletion(
            { prompt: letter.repeat(promptTokens), max_tokens, temperature: 0, ignore_eos: true });
        return timings;
    };
    const before = await gpuCounts.everywhere();
    await ask('a', 1);
    const answered = performance.now();
    const warm = await gpuCounts.everywhere();
    const timings = await ask('b', 1 + nTokens);
    const after = await gpuCounts.everywhere();
    await gpuCounts.everywhere(true);
    const { predicted_per_token_ms } = await ask('c', 1 + nTokens);
    const weights = lines.filter((line) => line.includes('model buffer size'));
    await wllama.exit();
    return {
        library_s: (began - started) / 1000,
        load_s: (loaded - began) / 1000,
        first_answer_s: (answered - began) / 1000,
        prompt_tokens: timings.prompt_n + timings.cache_n,
        first_token_s: timings.prompt_ms / 1000,
        prefill_tokens_per_s: timings.prompt_per_second,
        decode_tokens_per_s: timings.predicted_per_second,
        decoded_tokens: nTokens,
        null_ms: predicted_per_token_ms,
        counts: [before, warm, after],
        where: weights.map((line) => line.trim().split(/\s+/)[1]).join(' and ') || 'unknown',
    };
}
