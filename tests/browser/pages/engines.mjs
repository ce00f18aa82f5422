// Starts engine_page.py with the modules it imports: in PyScript, with a configuration of the site, or in
// a Chrome extension, on MicroPython.

const FOLDER = './tests/browser/pages';
const MODULES = ['page_support', 'engine_cases', 'engine_kinds', 'webllm_engine'].map(
  (name) => `${FOLDER}/${name}.py`,
);
const PAGE = `${FOLDER}/engine_page.py`;

async function inPyScript(name) {
  const { pyscriptConfig } = await import('/pyscript_config.mjs');
  const config = await pyscriptConfig(name, MODULES);
  config.js_modules = { main: { [`${FOLDER}/webllm_client.mjs`]: 'webllm_client' } };
  const script = document.createElement('script');
  script.type = name === 'mpy' ? 'mpy' : 'py';
  script.src = PAGE;
  script.setAttribute('config', JSON.stringify(config));
  document.body.append(script);
  await import('/pyscript/core.js');
}

async function inExtension() {
  const { runPython } = await import('/worker/extension_page.mjs');
  await runPython(PAGE, { modules: MODULES });
}

const name = new URLSearchParams(location.search).get('config');
await (name === 'extension' ? inExtension() : inPyScript(name));
