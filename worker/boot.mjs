// Boots Python, in a worker or on a page: from the memory snapshot made at build time, else plainly.
// `__BUILD__` becomes the build's id, so that a browser's cache never mixes two builds.

import createPyodideModule from '../pyodide/pyodide.asm.mjs';
import { loadPyodide } from '../pyodide/pyodide.mjs';
import { endBlobThread, readBlob, writeBlob } from './blob_thread.mjs?v=__BUILD__';
import { bufferOf, reuseBuffer } from './buffers.mjs?v=__BUILD__';
import * as bridge from './gpu_bridge.mjs?v=__BUILD__';
import { libraries as importedLater } from './libraries.mjs?v=__BUILD__';
import { makeTokenizers } from './tokenizers.mjs?v=__BUILD__';
import { makeXGrammar } from './xgrammar.mjs?v=__BUILD__';

const SITE = new URL('..', import.meta.url);
const PYODIDE = new URL('pyodide/', SITE).href;

async function download(path) {
  const url = new URL(`${path}?v=__BUILD__`, SITE);
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname} could not be fetched: HTTP ${response.status}`);
  return response;
}

function start(options) {
  const lock = download('pyodide/pyodide-lock.json').then((response) => response.text());
  return loadPyodide({
    createPyodideModule, ...options, indexURL: PYODIDE, packageBaseUrl: PYODIDE, lockFileContents: lock,
  });
}

async function downloadSnapshot() {
  const packed = await download('boot.snap.gz');
  const unpacked = packed.body.pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

async function fromSnapshot(options) {
  const snapshot = downloadSnapshot();
  const py = await start({
    ...options,
    _loadSnapshot: snapshot,
    // Pyodide copies the snapshot into a heap of the default size without growing it first.
    createPyodideModule: async (settings) => {
      const module = await createPyodideModule(settings);
      module._free(module._malloc((await snapshot).length));
      return module;
    },
  });
  py.runPython('from py_engine import snapshot; snapshot.thaw()', { globals: py.toPy({}) });
  return py;
}

async function plainly(options) {
  const [py, packages] = await Promise.all([
    start(options),
    download('py_engine.zip').then((response) => response.arrayBuffer()),
  ]);
  py.unpackArchive(packages, 'zip');
  py.runPython('from py_engine import snapshot; snapshot.import_everything()', { globals: py.toPy({}) });
  return py;
}

/** What is wrong with `instance` by a JSON Schema, both JSON texts: lines, none when it is valid. */
function validateJson(Validator, schema, instance) {
  try {
    const validator = new Validator(JSON.parse(schema), '2020-12', false);
    const { errors } = validator.validate(JSON.parse(instance));
    return errors.map(({ instanceLocation, error }) => `${instanceLocation}: ${error}`);
  } catch (error) {
    return [`it cannot be checked: ${error.message}`];
  }
}

/** What Python calls of the libraries. */
function tools(libraries) {
  let tokenizers; // a promise of one for all models
  function loadTokenizers() {
    tokenizers ??= libraries.tokenizers().then(makeTokenizers).catch((error) => {
      tokenizers = undefined;
      throw error;
    });
    return tokenizers;
  }
  return {
    bufferOf,
    reuseBuffer,
    readBlob,
    writeBlob,
    endBlobThread,
    loadTokenizers,
    beginTokenizers: () => void loadTokenizers().catch(() => {}), // who asks for it is told
    makeXGrammar: async () => makeXGrammar(await libraries.xgrammar()),
    async validateJson(schema, instance) {
      const { Validator } = await libraries.jsonSchema();
      return validateJson(Validator, schema, instance);
    },
  };
}

/**
 * Boot Python with py_engine imported and `pywebllm_bridge` and `pywebllm_worker` in place.
 *
 * `plain` skips the snapshot; members of `worker` are added to `pywebllm_worker`. `libraries` brings
 * the libraries of others, as libraries.mjs does; `pyodide` has options of `loadPyodide`, such as
 * `stdout`.
 * Returns {py, bootInfo: {mode: 'snapshot' | 'plain', seconds, snapshotError}}.
 */
export async function boot({
  plain = false, worker = {}, libraries = importedLater, pyodide = {},
} = {}) {
  const started = performance.now();
  const bootInfo = { mode: 'plain', seconds: 0, snapshotError: '' };
  let py;
  if (!plain) {
    try {
      py = await fromSnapshot(pyodide);
      bootInfo.mode = 'snapshot';
    } catch (error) {
      bootInfo.snapshotError = String(error);
      console.warn(`The boot snapshot was not restored (${error}); booting without it.`);
    }
  }
  py ??= await plainly(pyodide);
  const snapshot = py.pyimport('py_engine.snapshot');
  snapshot.connect({
    pywebllm_bridge: bridge,
    pywebllm_worker: { bootInfo, siteUrl: SITE.href, ...tools(libraries), ...worker },
  });
  snapshot.destroy();
  bootInfo.seconds = (performance.now() - started) / 1000;
  return { py, bootInfo };
}
