// Instances of the xgrammar library (wasm), each with its own memory.

/**
 * A new instance of the wrapped library: the library, the lines it writes before it ends itself, and
 * `compile`.
 *
 * `compile(compiler, kind, text)` compiles a grammar of kind 'json', 'ebnf' or 'structural_tag'. It
 * fails with Errors alone: the library also throws numbers, which Python cannot catch.
 */
export async function makeXGrammar({ makeLibrary }) {
  const errors = [];
  const quiet = () => {};
  const library = makeLibrary({ error: (line) => errors.push(String(line)), log: quiet, warn: quiet });
  const { Grammar } = library;
  (await Grammar.builtinJSONGrammar()).dispose(); // two first calls at once would start it twice

  async function compileGrammar(compiler, kind, text) {
    if (kind === 'json') return compiler.compileBuiltinJSONGrammar();
    const grammar = await (kind === 'ebnf' ? Grammar.fromEBNF(text) : Grammar.fromStructuralTag(text));
    const compiled = await compiler.compileGrammar(grammar);
    grammar.dispose();
    return compiled;
  }

  async function compile(...request) {
    try {
      return await compileGrammar(...request);
    } catch (error) {
      throw error instanceof Error ? error : new Error(`C++ exception at ${error}`);
    }
  }

  return { library, errors, compile };
}
