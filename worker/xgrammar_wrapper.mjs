// The site build puts the library, a UMD file around one wasm instance, into this function. So each
// call makes an instance of its own, and what the library tells the console reaches its caller.

/** Return the library's exports; `console` is what the library takes for it. */
export function makeXGrammar(console) {
  const exports = {};
  const module = { exports };
  // __LIBRARY__
  return exports;
}
