"""Which parameters a vision tower has: its matrices and vectors by role, with their shapes."""

from __future__ import annotations

from py_engine.models.vision_spec import VisionSpec
from py_engine.weights.parameters import MatrixParameter, Parameter, VectorParameter


def vision_parameters(spec: VisionSpec) -> tuple[Parameter, ...]:
    """Return the parameters of a tower and its projector in the order of their computation.

    They are never quantised while they load: a tower is small beside its language model.
    """
    hidden = spec.hidden_size
    found: list[Parameter] = [
        MatrixParameter(
            "vision.patches",
            (hidden,),
            spec.patch_columns,
            stored_row=spec.patch_row,
            stays=True,
        ),
        VectorParameter("vision.patches.bias", (hidden,)),
        MatrixParameter("vision.positions", (spec.n_patches,), hidden, stays=True),
    ]
    for index in range(spec.n_layers):
        found += _layer(spec, f"vision.layers.{index}.")
    return (
        *found,
        *_norm("vision.final_norm", hidden),
        VectorParameter("vision.projection_norm", (hidden,)),
        MatrixParameter("vision.projection", (spec.output_size,), hidden, stays=True),
    )


def _layer(spec: VisionSpec, layer: str) -> list[Parameter]:
    hidden, inner = spec.hidden_size, spec.intermediate_size
    return [
        *_norm(f"{layer}input_norm", hidden),
        MatrixParameter(f"{layer}qkv", (hidden,) * 3, hidden, stays=True),
        VectorParameter(f"{layer}qkv.bias", (hidden,) * 3),
        MatrixParameter(f"{layer}output", (hidden,), hidden, stays=True),
        VectorParameter(f"{layer}output.bias", (hidden,)),
        *_norm(f"{layer}mlp_norm", hidden),
        MatrixParameter(f"{layer}up", (inner,), hidden, stays=True),
        VectorParameter(f"{layer}up.bias", (inner,), padding=spec.inner_columns - inner),
        MatrixParameter(
            f"{layer}down", (hidden,), spec.inner_columns, stored_row=(inner,), stays=True
        ),
        VectorParameter(f"{layer}down.bias", (hidden,)),
    ]


def _norm(role: str, size: int) -> list[Parameter]:
    return [VectorParameter(role, (size,)), VectorParameter(f"{role}.bias", (size,))]
