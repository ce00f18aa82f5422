// Starts engine_page.py in PyScript, with a configuration of the site and the modules it imports.

const FOLDER = './tests/browser/pages';
const name = new URLSearchParams(location.search).get('config');
const config = await (await fetch(`./pyscript-${name}.json`)).json();
config.files ??= {};
for (const module of ['engine_cases', 'engine_kinds']) config.files[`${FOLDER}/${module}.py`] = `./${module}.py`;

const script = document.createElement('script');
script.type = name === 'mpy' ? 'mpy' : 'py';
script.src = `${FOLDER}/engine_page.py`;
script.setAttribute('config', JSON.stringify(config));
document.body.append(script);
await import('/pyscript/core.js');
