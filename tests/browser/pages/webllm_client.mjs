// WebLLM's client and a way for Python to call it: Pyodide waits for ever for a promise that is
// rejected with a string, as this client's are.

export * from '/webllm/index.js';

/** Call a method; resolves to {value} or {reason}, the text that it was rejected with. */
export async function settle(target, method, ...values) {
  try {
    return { value: await target[method](...values) };
  } catch (reason) {
    return { reason: String(reason) };
  }
}
