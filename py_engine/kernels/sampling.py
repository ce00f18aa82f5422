"""From logits to the next token on the GPU: mask, bias and penalties, the draw, log-probabilities.

`sampling` is the struct that `pack_sampling` packs. `counts` u32 (vocabulary,) counts how often
each token was drawn.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from py_engine.gpu.types import Access, Binding, KernelSpec, slice_stride
from py_engine.kernels.batch import ROWS, STATES, batch_stride
from py_engine.kernels.tuning import PLAIN, Tuning
from py_engine.kernels.wgsl import STATE, STATE_WORDS, SUBGROUP_DIRECTIVES, kernel_spec

SAMPLING_BYTES = 40

SAMPLING_STRIDE = slice_stride(SAMPLING_BYTES)
"""Bytes from one sequence's `sampling` to the next in the buffer of all."""

GREEDY_TEMPERATURE = 1e-5
"""Temperatures up to here take the likeliest token."""

_MAX_WORKGROUP = 256
_TOKENS_PER_THREAD = 8  # at least, where one workgroup has the whole vocabulary
_SAMPLING = Binding("sampling", "read", "Sampling")
_LARGEST = 3.4e38  # a little below the largest f32
_LEAST_SLICE = 256  # tokens: for fewer, one workgroup is as good
_SMALLEST_PENALTY = 1e-30  # divides every logit without overflow


def pack_sampling(
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    top_k: int = 0,
    seed: int = 0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    repetition_penalty: float = 1.0,
    top_logprobs: int = 0,
) -> bytes:
    """Return the bytes of the struct `sampling`; seeds count modulo 2^64, 0 switches top_k off."""
    penalty = max(_SMALLEST_PENALTY, min(repetition_penalty, _LARGEST))
    return struct.pack(
        "<3f3I3fI",
        min(temperature, _LARGEST),
        top_p,
        min_p + 0.0,  # -0.0 would have the bits of the highest threshold
        top_k,
        seed & 0xFFFFFFFF,
        seed >> 32 & 0xFFFFFFFF,
        presence_penalty,
        frequency_penalty,
        penalty,
        top_logprobs,
    )


def _vector(name: str, access: Access, element: str, size: int) -> Binding:
    return Binding(name, access, f"array<{element}, {size}>")


def _constants(
    vocabulary: int, workgroup: int = _MAX_WORKGROUP
) -> dict[str, int | float | bool | str]:
    return {"VOCABULARY": vocabulary, "WORKGROUP": workgroup, "GREEDY": GREEDY_TEMPERATURE}


def _threads(n_tokens: int, most: int) -> int:
    """Return the threads of a workgroup that looks at so many tokens; few need few."""
    return min(most, -(-n_tokens // (16 * _TOKENS_PER_THREAD)) * 16)  # workgroup_reduce.wgsl


def _reduction(tuning: Tuning) -> tuple[str, tuple[str, ...]]:
    """Return the snippet by which a draw's one workgroup adds up, and its directives."""
    if tuning.sample_threads == tuning.lanes:
        return "subgroup_reduce", SUBGROUP_DIRECTIVES
    return "workgroup_reduce", ()


def draw(vocabulary: int, tuning: Tuning = PLAIN, batch: int = 1) -> tuple[KernelSpec, ...]:
    """Build the kernels that draw a token from logits f32 (vocabulary,) and advance `state`.

    They apply temperature, top_k, top_p and min_p of `sampling`, in that order, and count the
    token. The same logits, seed and step give the same token. Ties at the border of top_k or top_p
    are all kept; the greedy choice among equal logits is the lowest id.

    One kernel of one workgroup does it. Where a tuning has slices, two kernels of many workgroups
    go before it, which leave it the tokens that the filters can leave; a greedy choice does without
    the second, `narrow`. `draw_scratch` tells of their buffers. The two ways add masses up in
    another order, which changes the token only where the random number or a filter falls within
    rounding of a border.

    The rows of a `batch`, whose logits are `batch_stride` apart, draw what each would alone. State
    and `sampling` of each are where `rows` has them (see `Batch`). They count nothing.
    """
    slices, most = _slices(vocabulary, tuning), tuning.sample_threads
    rows = _DrawnRows(vocabulary, slices, batch, *_reduction(tuning))
    if not slices:
        threads = _threads(vocabulary, most)
        return (rows.sample(threads, ("draw_all",), ("logits", "sampling"), ("probabilities",)),)
    kept = ("probabilities", "candidates", "kept_tokens")
    source, threads = ("slices", "draw_narrowed"), most // slices * slices
    return (
        rows.of_slices("survey", ("workgroup_reduce",), ("logits", "sampling"), ("survey",)),
        rows.of_slices("narrow", ("slices",), ("logits", "sampling", "survey"), kept),
        rows.sample(threads, source, ("sampling", "survey", *kept)),
    )


@dataclass(frozen=True)
class _DrawnRows:
    """The kernels of draws from `batch` rows of logits, in `slices` or (0) each as a whole.

    What draws adds up by the snippet `reduction`, which needs `directives`.
    """

    vocabulary: int
    slices: int
    batch: int
    reduction: str
    directives: tuple[str, ...]

    def of_slices(
        self, name: str, source: tuple[str, ...], read: tuple[str, ...], written: tuple[str, ...]
    ) -> KernelSpec:
        """Build a kernel with a workgroup for each slice."""
        threads = _threads(self._slice_size, _MAX_WORKGROUP)
        return self._kernel(name, (*source, name), read, written, threads, self.slices)

    def sample(
        self,
        threads: int,
        source: tuple[str, ...],
        read: tuple[str, ...],
        written: tuple[str, ...] = (),
    ) -> KernelSpec:
        """Build the kernel that draws; `source` tells which tokens its one workgroup looks at."""
        is_alone = self.batch == 1
        counting = "count_drawn" if is_alone else "count_none"
        source = (self.reduction, *source, counting, "sample")
        written = (*written, *(("counts",) if is_alone else ()), "state")
        return self._kernel("sample", source, read, written, threads, 1, self.directives)

    def _kernel(
        self,
        name: str,
        source: tuple[str, ...],
        read: tuple[str, ...],
        written: tuple[str, ...],
        threads: int,
        groups_x: int,
        directives: tuple[str, ...] = (),
    ) -> KernelSpec:
        is_alone, types = self.batch == 1, self._types()
        row = "draw_alone" if is_alone else "draw_of_batch"
        return kernel_spec(
            name,
            name,
            snippets=("sampling_params", "candidate", row, *source),
            bindings=(
                *(Binding(each, "read", types[each]) for each in read),
                *(Binding(each, "read_write", types[each]) for each in written),
                *(() if is_alone else (ROWS,)),
            ),
            constants={
                **_constants(self.vocabulary, threads),
                **({"SLICES": self.slices, "SLICE": self._slice_size} if self.slices else {}),
                "LOGITS_STRIDE": self._logits_stride,
                "SAMPLING_STRIDE": SAMPLING_STRIDE,
                "BATCH": 0 if is_alone else self.batch,
                **STATE_WORDS,
            },
            groups_x=groups_x,
            tokens_per_group=0 if is_alone else 1,
            directives=directives,
        )

    @property
    def _slice_size(self) -> int:
        return -(-self.vocabulary // self.slices)

    @property
    def _logits_stride(self) -> int:
        return self.vocabulary if self.batch == 1 else batch_stride(self.vocabulary)

    def _types(self) -> dict[str, str]:
        """Return the WGSL types of all buffers."""
        is_alone = self.batch == 1
        rows = {
            "logits": ("f32", self._logits_stride),
            "counts": ("u32", self.vocabulary),
            **_scratch(self.vocabulary, self.slices),
        }
        return {
            "sampling": "Sampling" if is_alone else "array<SamplingSlot>",
            "state": (STATE if is_alone else STATES).type,
            **{name: f"array<{kind}, {self.batch * n}>" for name, (kind, n) in rows.items()},
        }


def _scratch(vocabulary: int, slices: int) -> dict[str, tuple[str, int]]:
    """Return type and number of the elements that a row's draw needs beside its inputs."""
    found = {"probabilities": ("f32", vocabulary)}
    if slices:
        found |= {
            "survey": ("vec4f", slices),
            "candidates": ("u32", vocabulary),
            "kept_tokens": ("u32", slices),
        }
    return found


def draw_scratch(vocabulary: int, tuning: Tuning) -> dict[str, int]:
    """Return the bytes of what the kernels of a draw need beside its inputs, by binding."""
    scratch = _scratch(vocabulary, _slices(vocabulary, tuning))
    return {name: (16 if kind == "vec4f" else 4) * n for name, (kind, n) in scratch.items()}


def _slices(vocabulary: int, tuning: Tuning) -> int:
    """Return the slices of a draw, 0 where one workgroup looks at all tokens."""
    return tuning.sample_slices if vocabulary >= tuning.sample_slices * _LEAST_SLICE else 0


def mask(label: str, vocabulary: int) -> KernelSpec:
    """Build the kernel that forbids tokens: its logit becomes -3.4e38 where a bit of `mask` is 0.

    `mask` is u32 (ceil(vocabulary / 32),), token i being bit i % 32 of word i // 32.
    """
    return kernel_spec(
        "mask",
        label,
        snippets=("sampling_params", "mask"),
        bindings=(
            _vector("mask", "read", "u32", -(-vocabulary // 32)),
            _vector("logits", "read_write", "f32", vocabulary),
        ),
        constants=_constants(vocabulary),
        groups_x=-(-vocabulary // _MAX_WORKGROUP),
    )


def adjust(label: str, vocabulary: int) -> KernelSpec:
    """Build the kernel of `bias` f32 (vocabulary,) and the penalties, in place on logits.

    WebLLM 0.2's formulas: plus bias; for a token with a count minus presence_penalty and minus
    count times frequency_penalty; then times repetition_penalty below 0, divided by it above.
    """
    return kernel_spec(
        "adjust",
        label,
        snippets=("sampling_params", "adjust"),
        bindings=(
            _vector("bias", "read", "f32", vocabulary),
            _vector("counts", "read", "u32", vocabulary),
            _SAMPLING,
            _vector("logits", "read_write", "f32", vocabulary),
        ),
        constants=_constants(vocabulary),
        groups_x=-(-vocabulary // _MAX_WORKGROUP),
    )


def logprobs(label: str, vocabulary: int, max_top: int, tuning: Tuning = PLAIN) -> KernelSpec:
    """Build the kernel of log-probabilities, of softmax(logits / temperature).

    Temperature 0 counts as 1. `drawn` u32 (2 + 2 * max_top,) receives the token in `state` and its
    log-probability (the bits of an f32), then the same two words for each of the
    `sampling.top_logprobs` likeliest tokens, the likeliest first, of equal ones the lowest id; at
    most `max_top` and the vocabulary. None is below -9999, OpenAI's value for "very unlikely".
    """
    reduction, directives = _reduction(tuning)
    return kernel_spec(
        "logprobs",
        label,
        snippets=("sampling_params", "candidate", reduction, "logprobs"),
        bindings=(
            _vector("logits", "read", "f32", vocabulary),
            _SAMPLING,
            STATE,
            _vector("drawn", "read_write", "u32", 2 + 2 * max_top),
        ),
        constants={
            **_constants(
                vocabulary, _threads(vocabulary, min(tuning.sample_threads, _MAX_WORKGROUP))
            ),
            "MAX_TOP": max_top,
            **STATE_WORDS,
        },
        groups_x=1,
        directives=directives,
    )
