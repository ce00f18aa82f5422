"""Puts a kernel's WGSL together: directives, constants, bindings, then snippets in order.

The snippets are read when this module is imported, because a worker that starts from a memory
snapshot has the modules but not their files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import resources

from py_engine.gpu.types import INT8_DOT, Binding, KernelSpec

_SNIPPETS = {
    entry.name.removesuffix(".wgsl"): entry.read_text(encoding="utf-8")
    for entry in resources.files(__package__).iterdir()
    if entry.name.endswith(".wgsl")
}

SNIPPETS_DIGEST = sha256("".join(sorted(_SNIPPETS.values())).encode()).hexdigest()
"""Tells one version of the kernels from another."""

STATE = Binding("state", "read", "array<u32, 4>")
STATE_RW = Binding("state", "read_write", "array<u32, 4>")
STATE_WORDS = {
    "STATE_POSITION": 0,  # tokens in the KV cache before this step
    "STATE_N_TOKENS": 1,  # tokens of this step: the prefill chunk's, 1 in decode
    "STATE_TOKEN": 2,  # the token drawn last
    "STATE_STEP": 3,  # draws since the sequence began; the counter of the random numbers
}

SUBGROUP_DIRECTIVES = ("enable subgroups;", "requires subgroup_id;")
F16_DIRECTIVES = ("enable f16;",)
INT8_DIRECTIVES = (f"requires {INT8_DOT};",)


def _literal(value: int | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value}u" if isinstance(value, int) else f"{value!r}f"


def _space(binding: Binding) -> str:
    return "uniform" if binding.access == "uniform" else f"storage, {binding.access}"


def kernel_spec(
    name: str,
    label: str,
    *,
    snippets: Sequence[str],
    bindings: Sequence[Binding],
    constants: Mapping[str, int | float | bool | str],
    groups_x: int,
    tokens_per_group: int = 0,
    groups_y: int = 1,
    token_axis: int = 1,
    directives: Sequence[str] = (),
) -> KernelSpec:
    """Compose the kernel `name` from snippets (file names in this folder without `.wgsl`).

    Constants become WGSL `const`s; text constants only describe the kernel to its NumPy reference.
    """
    lines = list(directives)
    lines += [
        f"const {key} = {_literal(value)};"
        for key, value in constants.items()
        if not isinstance(value, str)
    ]
    lines += [
        f"@group(0) @binding({i}) var<{_space(binding)}> {binding.name}: {binding.type};"
        for i, binding in enumerate(bindings)
    ]
    source = "\n".join([*lines, "", *(_SNIPPETS[snippet] for snippet in snippets)])
    return KernelSpec(
        name,
        label,
        source,
        tuple(bindings),
        dict(constants),
        groups_x,
        tokens_per_group,
        groups_y,
        token_axis,
    )
