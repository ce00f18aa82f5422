"""What the files of cases share; MicroPython and Pyodide import it beside them."""

import js

try:
    from pyodide.ffi import create_proxy
except ImportError:  # MicroPython
    from jsffi import create_proxy


def ask(text, **fields):
    """Return a request for a reply to `text`."""
    fields["messages"] = [{"role": "user", "content": text}]
    return fields


async def text_of(stream):
    """Return the text of a streamed reply."""
    text = ""
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return text


async def error_of(awaitable, kind, text=""):
    """Return the error of an awaitable, which must be of the class `kind` and tell `text`."""
    try:
        await awaitable
    except Exception as error:
        assert isinstance(error, kind), f"{type(error).__name__}: {error}"
        assert text in str(error), error
        return error
    raise AssertionError(f"nothing was raised, but {kind} expected")


def same(found, wanted):
    """Fail unless the two are equal, and tell them."""
    assert found == wanted, f"{found!r} is not {wanted!r}"


async def problem_of(awaitable):
    """Return "", or what went wrong with an awaitable."""
    try:
        await awaitable
    except Exception as error:
        return f"{type(error).__name__}: {error}\n{getattr(error, 'remote_traceback', '')}"
    return ""


def offer_cases(functions):
    """Give JavaScript `runCase(name)`, which resolves to a case's `problem_of`, and `caseNames`."""
    js.caseNames = ",".join(sorted(name for name in functions if name.startswith("case_")))
    js.runCase = create_proxy(lambda name: problem_of(functions[name]()))
