// The libraries of others that the engine uses, each fetched when it is first asked for.

export const libraries = {
  tokenizers: () => import('../tokenizers/index.mjs?v=__BUILD__'),
  jsonSchema: () => import('../json-schema/index.js?v=__BUILD__'),
  xgrammar: () => import('../xgrammar/index.mjs?v=__BUILD__'),
};
