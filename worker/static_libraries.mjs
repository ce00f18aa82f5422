// The same as libraries.mjs for service workers, which must not import() anything later.

import * as jsonSchema from '../json-schema/index.js?v=__BUILD__';
import * as tokenizers from '../tokenizers/index.mjs?v=__BUILD__';
import * as xgrammar from '../xgrammar/index.mjs?v=__BUILD__';

export const libraries = {
  tokenizers: async () => tokenizers,
  jsonSchema: async () => jsonSchema,
  xgrammar: async () => xgrammar,
};
