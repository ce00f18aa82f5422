"""Which loaded model a request goes to; the engine and its proxies ask the same function.

Runs on CPython, Pyodide and MicroPython.
"""

from py_engine.errors import (
    ModelNotLoadedError,
    SpecifiedModelNotFoundError,
    UnclearModelToUseError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def select_model_id(loaded: "Sequence[str]", requested: "str | None", request_name: str) -> str:
    """Return the model id that `request_name` should use, by WebLLM's `getModelIdToUse`.

    Errors: ModelNotLoadedError when nothing is loaded, SpecifiedModelNotFoundError when
    `requested` is not, UnclearModelToUseError when it is None and several models are.
    """
    names = ", ".join(f'"{model_id}"' for model_id in loaded)
    if not loaded:
        raise ModelNotLoadedError(
            f"{request_name}: no model is loaded; call `await engine.reload(model_id)` first."
        )
    if requested is not None:
        if requested not in loaded:
            raise SpecifiedModelNotFoundError(
                f'{request_name}: model "{requested}" is not loaded (loaded: {names}); '
                "load it with `await engine.reload(...)`, or leave `model` out."
            )
        return requested
    if len(loaded) > 1:
        raise UnclearModelToUseError(
            f"{request_name}: several models are loaded ({names}); say which in `model`."
        )
    return loaded[0]
