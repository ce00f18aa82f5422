"""The script of engines.html: `runCase(name)` for JavaScript, on the engine of the page's kind."""

import engine_cases
import engine_kinds
import js

try:
    from pyodide.ffi import create_proxy
except ImportError:  # MicroPython
    from jsffi import create_proxy

shared = {}


async def run_case(name):
    if "engine" not in shared:
        kind = js.URLSearchParams.new(js.location.search).get("engine")
        shared["engine"] = await getattr(engine_kinds, kind)()
    return await engine_cases.run(name, shared["engine"])


js.caseNames = ",".join([name[5:] for name in dir(engine_cases) if name.startswith("case_")])
js.runCase = create_proxy(run_case)
js.document.title = "ready"
