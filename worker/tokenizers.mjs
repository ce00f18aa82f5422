// The tokenizers library (wasm).

const SMALLEST = JSON.stringify({ model: { type: 'BPE', vocab: {}, merges: [] } });

/** An instance of the wrapped library that is ready. */
export async function makeTokenizers({ makeLibrary }) {
  const { Tokenizer } = makeLibrary();
  const json = new TextEncoder().encode(SMALLEST).buffer;
  (await Tokenizer.fromJSON(json)).dispose(); // two first calls at once would start it twice
  return { Tokenizer };
}
