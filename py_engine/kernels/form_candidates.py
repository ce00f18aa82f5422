"""Forms of products that may be the fastest on a GPU; a choice among them as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from py_engine.chat_config import ActivationDtype
from py_engine.gpu.types import AdapterInfo, Limits
from py_engine.kernels.forms import (
    PLAIN_INT8,
    AttentionTile,
    Form,
    Forms,
    GemmTile,
    GemvForm,
    ProductKind,
)

_GEMV = (
    GemvForm(4, 256, unroll=2, staged=True),
    GemvForm(2, 256, unroll=2, staged=True),
    GemvForm(4, 64),
    GemvForm(2, 64, unroll=2),
    GemvForm(4, 128, split=4),
    GemvForm(2, 128, split=2),
)
_GEMV_INT8 = (
    PLAIN_INT8,
    GemvForm(8, 256, staged=True, int8=True),
    GemvForm(4, 256, split=2, staged=True, int8=True),
    GemvForm(2, 256, staged=True, int8=True),
)
_GEMM = (GemmTile(64, 64, 32), GemmTile(128, 64, 16))
_GEMM_F16 = (GemmTile(64, 64, 32, "float16"), GemmTile(128, 64, 32, "float16"))
_GEMM_INT8 = (GemmTile(64, 64, 64, "int8"), GemmTile(128, 64, 64, "int8"))
_ATTENTION = (AttentionTile(64), AttentionTile(128))
_GEMM_WORKGROUP = 256
_KINDS: dict[str, type[Form]] = {"gemv": GemvForm, "gemm": GemmTile, "attention": AttentionTile}


def candidates(
    info: AdapterInfo, limits: Limits, activation_dtype: ActivationDtype
) -> Mapping[ProductKind, tuple[Form, ...]]:
    """Return the forms beside the plain ones that an adapter may have for each kind of product."""
    return {
        "gemv": gemv_candidates(info.subgroup_size_max, limits, activation_dtype),
        "gemm": gemm_candidates(info, limits, activation_dtype),
        "attention": _ATTENTION,
    }


def gemv_candidates(
    lanes: int | None, limits: Limits, activation_dtype: ActivationDtype
) -> tuple[GemvForm, ...]:
    """Return the forms that can be made of subgroups of so many lanes.

    Without subgroups only the plain one, where x may be rounded, is another than in f32.
    """
    is_int8 = activation_dtype == "int8"
    if lanes is None:
        return (PLAIN_INT8,) if is_int8 else ()
    most = _most_threads(limits)
    forms = (*_GEMV, *(_GEMV_INT8 if is_int8 else ()))
    return tuple(form for form in forms if lanes * form.split <= form.workgroup <= most)


def gemm_candidates(
    info: AdapterInfo, limits: Limits, activation_dtype: ActivationDtype
) -> tuple[GemmTile, ...]:
    """Return the tiles that an adapter with these limits can have."""
    if _most_threads(limits) < _GEMM_WORKGROUP:
        return ()
    in_f16 = _GEMM_F16 if info.has_f16 and activation_dtype != "float32" else ()
    return (*_GEMM, *in_f16, *(_GEMM_INT8 if activation_dtype == "int8" else ()))


def _most_threads(limits: Limits) -> int:
    return min(limits.max_compute_invocations_per_workgroup, limits.max_compute_workgroup_size_x)


def forms_as_json(forms: Forms) -> str:
    """Write forms down, for `forms_from_json`."""
    return json.dumps(
        [[*product, None if form is None else asdict(form)] for product, form in forms.items()]
    )


def forms_from_json(text: str) -> Forms:
    """Read what `forms_as_json` wrote. Raises ValueError for anything else."""
    try:
        return {
            (kind, int(rows), int(columns)): None if form is None else _KINDS[kind](**form)
            for kind, rows, columns, form in json.loads(text)
        }
    except (TypeError, KeyError) as error:
        raise ValueError(f"these are no forms of kernels: {text[:80]!r}") from error
