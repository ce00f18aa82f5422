"""The script of engines.html: `runCase(name)` for JavaScript, on the engine of the page's kind."""

import engine_cases
import engine_kinds
import js
from page_support import create_proxy, problem_of

shared = {}


async def run_case(name):
    if "engine" not in shared:
        kind = js.URLSearchParams.new(js.location.search).get("engine")
        shared["engine"] = await getattr(engine_kinds, kind)()
    return await problem_of(engine_cases.run(name, shared["engine"]))


js.caseNames = ",".join([name[5:] for name in dir(engine_cases) if name.startswith("case_")])
js.runCase = create_proxy(run_case)
js.document.title = "ready"
