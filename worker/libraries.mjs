// The libraries of others that the engine uses, each fetched when it is first asked for.

export const libraries = {
  /** The Rust tokenizers library: a UMD file, which sets a global. */
  async tokenizers() {
    await import('../tokenizers/index.js?v=__BUILD__');
    return globalThis.tokenizers;
  },
  jsonSchema: () => import('../json-schema/index.js?v=__BUILD__'),
  xgrammar: () => import('../xgrammar/index.mjs?v=__BUILD__'),
};
