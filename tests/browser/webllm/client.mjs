// Makes the cases for one of WebLLM's clients known to the test.

const client = new URLSearchParams(location.search).get('client');
const { cases } = await import(`./${client}_cases.mjs`);

globalThis.caseNames = Object.keys(cases);

/** Run a case; resolves to {value} or, where it failed, to {error}. */
globalThis.runCase = async (name, argument) => {
  try {
    return { value: await cases[name](argument) };
  } catch (error) {
    return { error: String(error?.stack ?? error) };
  }
};
document.title = 'ready';
