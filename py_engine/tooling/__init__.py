"""The developer's side of PyWebLLM: set-up, site, server, demo and bench behind `build.py`.

Nothing here is part of the engine: it is left out of the site and of the boot snapshot.
`steps`, `environment`, `parts` and `site` keep to the standard library, because they run before
there is a virtual environment to import from.
"""
