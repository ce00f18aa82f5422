// The configuration that PyScript needs to run Python with py_engine, for a page in any folder.

/**
 * The `config` of a script of `kind`: 'mpy', 'py', or 'py-engine', which has the engine itself; all
 * its URLs are absolute.
 *
 * `modules` are further Python files, relative to the page, which its script can import.
 */
export async function pyscriptConfig(kind, modules = []) {
  const inSite = (path) => new URL(path, import.meta.url).href;
  const response = await fetch(inSite(`./pyscript-${kind}.json?v=__BUILD__`));
  if (!response.ok) throw new Error(`${response.url} could not be fetched: HTTP ${response.status}`);
  const { interpreter, files = {} } = await response.json();
  const sources = Object.entries(files).map(([path, target]) => [inSite(path), target]);
  for (const path of modules) {
    const url = new URL(`${path}?v=__BUILD__`, location.href);
    sources.push([url.href, `./${url.pathname.split('/').at(-1)}`]);
  }
  return { interpreter: inSite(interpreter), files: Object.fromEntries(sources) };
}
