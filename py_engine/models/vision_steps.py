"""From a spec to a vision tower's programs: which kernel runs over which buffers, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from py_engine.gpu.types import KernelSpec
from py_engine.kernels.encoder import attention_bidirectional
from py_engine.kernels.norm import Norm
from py_engine.kernels.product import Epilogue
from py_engine.kernels.tuning import Tuning
from py_engine.kernels.vision import average_patches, patches, resize_rows
from py_engine.models.encoder_steps import layer_steps
from py_engine.models.ops import Ops, Step
from py_engine.models.vision_spec import ImageProcessing, VisionSpec
from py_engine.weights.layouts import Layouts

PROJECTOR = "projector "
"""Before the name of the `state` that counts the rows of a whole image."""


Rows = Literal["pixels", "patches", "embedded"]
"""What a program runs over: an image's rows of pixels, its patches, or the rows it becomes."""


@dataclass(frozen=True)
class Stage:
    """A program of its own, so that no single one keeps the GPU for long."""

    label: str
    rows: Rows
    steps: tuple[Step, ...]


def stage_kernels(stages: Sequence[Stage]) -> list[KernelSpec]:
    """Return every kernel once."""
    steps = chain.from_iterable(stage.steps for stage in stages)
    return list({id(step.kernel): step.kernel for step in steps}.values())


def vision_stages(
    spec: VisionSpec, processing: ImageProcessing, layouts: Layouts, tuning: Tuning
) -> tuple[Stage, ...]:
    """Return a tower's programs in order, of kernels in the forms of `tuning`."""
    ops = _patch_ops(spec, layouts, tuning)
    resize = ops.kernel(
        resize_rows, "resize", size=spec.image_size, resize_filter=processing.filter
    )
    return (
        Stage("resize", "pixels", (Step(resize, ("pixels", "image", "rows")),)),
        Stage("patches", "patches", tuple(_embeddings(spec, processing, ops))),
        *_layers(spec, ops),
        Stage("pool", "patches", tuple(_pool(spec, ops))),
        Stage("project", "embedded", tuple(_project(spec, layouts, tuning))),
    )


def _patch_ops(spec: VisionSpec, layouts: Layouts, tuning: Tuning) -> Ops:
    columns = {
        "patches": spec.patch_columns,
        "x": spec.hidden_size,
        "normed": spec.hidden_size,
        "attended": spec.hidden_size,
        "activated": spec.inner_columns,
    }
    norm = Norm("layer", spec.layer_norm_eps, bias=True)
    return Ops(layouts, norm, columns, tuning=tuning, max_tokens=spec.n_patches, prefix="vision ")


def _embeddings(spec: VisionSpec, processing: ImageProcessing, ops: Ops) -> Iterator[Step]:
    cut = ops.kernel(
        patches,
        "patches",
        size=spec.image_size,
        resize_filter=processing.filter,
        patch_size=spec.patch_size,
        patch_columns=spec.patch_columns,
        rescale=processing.rescale,
        mean=processing.mean,
        std=processing.std,
    )
    yield ops.step(cut, {"pixels": "rows", "image": "image", "output": "patches"})
    yield from ops.product("vision.patches", "patches", "x", Epilogue(bias=True))
    yield from ops.embedding("vision.positions", "positions", "state", add=True)


def _layers(spec: VisionSpec, ops: Ops) -> Iterator[Stage]:
    attention = ops.kernel(
        attention_bidirectional,
        "attention",
        n_heads=spec.n_heads,
        head_dim=spec.head_dim,
        max_tokens=spec.n_patches,
    )
    for index in range(spec.n_layers):
        layer = f"vision.layers.{index}."
        steps = layer_steps(ops, layer, attention, "gelu_tanh", norms_first=True)
        yield Stage(f"layer {index}", "patches", tuple(steps))


def _pool(spec: VisionSpec, ops: Ops) -> Iterator[Step]:
    yield ops.norm("vision.final_norm", "norm", "x", "x", "in_place")
    average = ops.kernel(
        average_patches,
        "average",
        side=spec.side,
        pooled_side=spec.pooled_side,
        hidden_size=spec.hidden_size,
    )
    yield ops.step(average, {"x": "x", "output": "pooled"})


def _project(spec: VisionSpec, layouts: Layouts, tuning: Tuning) -> Iterator[Step]:
    ops = Ops(
        layouts,
        Norm("rms", spec.layer_norm_eps),
        {"x": spec.hidden_size, "pooled": spec.hidden_size},
        tuning=tuning,
        max_tokens=spec.n_tokens,
        prefix=PROJECTOR,
        rows=frozenset(("state",)),
    )
    yield ops.norm("vision.projection_norm", "norm", "pooled", "pooled", "in_place")
    yield from ops.product("vision.projection", "pooled", "embedded", Epilogue())
