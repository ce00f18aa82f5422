// Runs in Node.js at build time: boots Pyodide, imports the worker's packages, saves its memory.
// Usage: node make_snapshot.mjs PYODIDE_FOLDER PACKAGES.zip TARGET.snap.gz

import { readFile, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';

const FREEZE = `
import gc, pathlib
from py_engine import snapshot
count = snapshot.freeze(pathlib.Path.cwd())
report = [f"not imported: {name}: {why}" for name, why in snapshot.not_imported.items()]
report = "\\n".join([*report, f"{count} files kept"])
del pathlib, snapshot, count
gc.collect()
globals().pop("report")
`;

async function main(pyodideFolder, packages, target) {
  const { loadPyodide } = await import(pathToFileURL(`${pyodideFolder}/pyodide.mjs`));
  const py = await loadPyodide({ indexURL: pyodideFolder, _makeSnapshot: true });
  py.unpackArchive(new Uint8Array(await readFile(packages)), 'zip');
  console.log(py.runPython(FREEZE));
  const memory = py.makeMemorySnapshot();
  await writeFile(target, gzipSync(memory, { level: 9 }));
  console.log(`${memory.length} bytes of memory`);
}

try {
  await main(...process.argv.slice(2).map((path) => resolve(path)));
} catch (error) {
  // Node.js itself would print the whole minified source line of Pyodide around the error.
  console.error(error.message);
  process.exit(1);
}
