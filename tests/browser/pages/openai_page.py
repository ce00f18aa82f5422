# Added to the script of docs/openai-client.md: runs the cases of openai_cases.py on its engine.

import js
from pyodide.http import pyfetch
from pyscript.ffi import create_proxy

source = await (await pyfetch("./tests/browser/pages/openai_cases.py")).text()  # noqa: F704
with open("openai_cases.py", "w") as file:
    file.write(source)
import openai_cases  # noqa: E402

js.runCase = create_proxy(lambda name: openai_cases.run_case(name, engine))  # noqa: F821
