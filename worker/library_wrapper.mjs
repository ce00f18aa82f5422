// The site build puts a library, a UMD file made by Emscripten, into the function `makeLibrary`, and
// its WebAssembly, which was a text in base64 in there, into a file beside: browsers compile files
// while they come, and keep what they compiled.

const WASM = new URL('./index.wasm?v=__BUILD__', import.meta.url);

let compiling;

async function compile() {
  const response = await fetch(WASM);
  if (!response.ok) throw new Error(`${WASM.pathname} could not be fetched: HTTP ${response.status}`);
  const isKnown = response.headers.get('Content-Type') === 'application/wasm';
  return isKnown
    ? WebAssembly.compileStreaming(response)
    : WebAssembly.compile(await response.arrayBuffer());
}

async function instantiate(_bytes, imports) {
  compiling ??= compile();
  try {
    const module = await compiling;
    return { module, instance: await WebAssembly.instantiate(module, imports) };
  } catch (error) {
    compiling = undefined; // the network may be back for the next one
    throw error;
  }
}

/**
 * Return the library's exports, around one instance of its WebAssembly each; `console` is what the
 * library takes for it.
 */
export function makeLibrary(console = globalThis.console) {
  const exports = {};
  const module = { exports };
  const WebAssembly = Object.assign(Object.create(globalThis.WebAssembly), { instantiate });
  // __LIBRARY__
  return exports;
}
