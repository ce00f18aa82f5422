"""A model's parameters by role, and where the tensors of each role stand in a file.

A role says what a parameter does, the same in every family and file: "embedding", "positions",
"layers.3.qkv", "layers.3.qkv.bias", "final_norm", "lm_head". A matrix is a linear layer or a table;
everything else is a vector: a norm's weight has the norm's role, a bias its layer's or norm's role
and ".bias". In a layer, "layers.{i}.", there may be

    input_norm, qkv, q_norm, k_norm, output, post_attention_norm,
    mlp_norm, gate_up (gated) or up, down, post_mlp_norm,

in a layer with linear attention instead of attention (`kernels/delta.py`)

    delta.input (rows of q|k|v, z, b, a), delta.conv, delta.gates (A_log, dt_bias), delta.norm,
    delta.output,

and in a layer of an encoder, whose norms come after the residual, attention_output_norm and
mlp_output_norm.

A family writes its names as a table of patterns, in which "{i}" stands for a layer's number, and in
those of vectors "{h}" for a head's; what is not in the model may stand in it. `layer_names` turns
the table into one of a whole model, `vector_tensors` lists the heads.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

FileKind = Literal["mlc", "hf", "gguf"]
"""Files of MLC, Hugging Face's safetensors, and GGUF."""

Transform = Literal["none", "transpose", "add_one", "interleaved_heads", "rope_pairs"]
"""What a stored tensor needs to become ours.

transpose: [in][out] to [out][in] (GPT-2's Conv1D). add_one: w + 1 (Gemma's norms in Hugging Face's
files). interleaved_heads: rows of q, k and v of each head in turn, to all of q, all of k, all of v
(GPT-NeoX). rope_pairs: in every head rows 0, 1, 2, 3, ... are pairs (0, 1), (2, 3), ..., to halves:
0, 2, 4, ..., 1, 3, 5, ... (GGUF's q and k of the Llama family).
"""

LAYER = "{i}"
HEAD = "{h}"
"""Stand for the numbers of layers and of heads in names."""


@dataclass(frozen=True)
class Stored:
    """The tensors of a file that make up one parameter, stacked by rows in this order.

    A matrix's `names` are without ".weight", ".q_weight" or ".q_scale", because its quantisation
    decides; a vector's are whole. `transform` is of the tensors that `transformed` marks (None: of
    all). `ending` is what a plain matrix's names have instead of ".weight".
    """

    names: tuple[str, ...]
    transform: Transform = "none"
    transformed: tuple[bool, ...] | None = None
    ending: str = ".weight"

    def transform_of(self, index: int) -> Transform:
        """Return the transform of tensor number `index`."""
        if self.transformed is not None and not self.transformed[index]:
            return "none"
        return self.transform


@dataclass(frozen=True)
class MatrixParameter:
    """A matrix: `columns` inputs, and rows in blocks (of q, k and v; of gate and up; or one).

    `gated` matrices have two blocks of the same height. `head_dim` is given where rows are of
    heads, for the transforms that need it. `stored_row` is the shape that a row has in files where
    that is not (columns,), as a convolution's; zeros fill it up to `columns`. Weights that `stay`
    are never quantised while they load.
    """

    role: str
    row_blocks: tuple[int, ...]
    columns: int
    gated: bool = False
    head_dim: int | None = None
    stored_row: tuple[int, ...] = ()
    stays: bool = False

    @property
    def blocks(self) -> tuple[int, ...]:
        """The rows of the blocks, which files may have tensors of their own for."""
        return self.row_blocks

    @property
    def rows(self) -> int:
        """Rows of all blocks."""
        return sum(self.row_blocks)


@dataclass(frozen=True)
class VectorParameter:
    """A norm's weight or a bias, f32 on the GPU, in blocks as the matrix that it belongs to.

    What has more than one dimension in files has its `stored_shape` there. After its elements come
    `padding` zeros.
    """

    role: str
    block_sizes: tuple[int, ...]
    head_dim: int | None = None
    stored_shape: tuple[int, ...] | None = None
    padding: int = 0

    @property
    def blocks(self) -> tuple[int, ...]:
        """The elements of the blocks, which files may have tensors of their own for."""
        return self.block_sizes

    @property
    def size(self) -> int:
        """Elements of all blocks."""
        return sum(self.block_sizes)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the vector's buffer."""
        return 4 * (self.size + self.padding)


Parameter = MatrixParameter | VectorParameter
NameTable = Mapping[str, Stored]
"""Role to tensors: of patterns with "{i}", or of a whole model."""


@dataclass(frozen=True)
class Spelling:
    """How the names of some files differ from a family's table.

    Of `prefixes`, each with what these files have instead, the first that a name begins with is
    replaced; of `suffixes` the first that it ends with.
    """

    prefixes: tuple[tuple[str, str], ...] = ()
    suffixes: tuple[tuple[str, str], ...] = ()

    def of(self, name: str) -> str:
        """Return the name as these files have it."""
        for prefix, other in self.prefixes:
            if name.startswith(prefix):
                name = other + name.removeprefix(prefix)
                break
        for suffix, other in self.suffixes:
            if name.endswith(suffix):
                return name.removesuffix(suffix) + other
        return name


def named(*names: str, transform: Transform = "none") -> Stored:
    """Return the tensors `names`, all under the same transform."""
    return Stored(names, transform)


def linear_names(role: str, *names: str, transform: Transform = "none") -> dict[str, Stored]:
    """Return the entries of a linear layer: its matrix, and the bias that it may have.

    The bias has the same `transform` only where that moves rows.
    """
    moved: Transform = "none" if transform == "transpose" else transform
    biases = (f"{name}.bias" for name in names)
    return {
        role: named(*names, transform=transform),
        f"{role}.bias": named(*biases, transform=moved),
    }


def norm_names(role: str, name: str, transform: Transform = "none") -> dict[str, Stored]:
    """Return the entries of a norm: its weight, and the bias that a LayerNorm may have."""
    return {
        role: named(f"{name}.weight", transform=transform),
        f"{role}.bias": named(f"{name}.bias"),
    }


def layer_names(table: NameTable, n_layers: int) -> dict[str, Stored]:
    """Return the names of a model of `n_layers` layers, given patterns with "{i}"."""
    found: dict[str, Stored] = {}
    for role, stored in table.items():
        for index in range(n_layers) if LAYER in role else (0,):
            names = tuple(name.replace(LAYER, str(index)) for name in stored.names)
            found[role.replace(LAYER, str(index))] = replace(stored, names=names)
    return found


def vector_tensors(parameter: VectorParameter, stored: Stored) -> tuple[str, ...]:
    """Return the names of a vector's tensors: one with "{h}" stands for one for each head."""
    if parameter.head_dim is None:
        return stored.names
    heads = range(parameter.size // parameter.head_dim)
    return tuple(
        name.replace(HEAD, str(head))
        for name in stored.names
        for head in (heads if HEAD in name else (0,))
    )


@dataclass(frozen=True)
class StoredBlock:
    """One tensor of a parameter: `size` of its rows or elements; a matrix's name has no ending."""

    name: str
    size: int
    transform: Transform


def stored_blocks(parameter: Parameter, stored: Stored) -> list[StoredBlock]:
    """Return the tensors of a parameter: one for all, one for each block, or for each head."""
    names = stored.names
    if isinstance(parameter, VectorParameter):
        names = vector_tensors(parameter, stored)
    if len(names) > len(stored.names):
        sizes: tuple[int, ...] = (parameter.head_dim or 0,) * len(names)
        transforms = [stored.transform] * len(names)
    else:
        sizes = parameter.blocks if len(names) > 1 else (sum(parameter.blocks),)
        transforms = [stored.transform_of(index) for index in range(len(names))]
    return [StoredBlock(*each) for each in zip(names, sizes, transforms, strict=True)]


def respelled(table: NameTable, spelling: Spelling) -> dict[str, Stored]:
    """Return a table with every name as `spelling` has it."""
    return {
        role: replace(stored, names=tuple(map(spelling.of, stored.names)))
        for role, stored in table.items()
    }


def fitting_names(
    table: NameTable, spellings: Sequence[Spelling], tensors: Container[str]
) -> NameTable:
    """Return the spelling of `table` that a file's `tensors` have, the table's own if none fits.

    Checkpoints of one family differ in their prefixes: a model saved without its head lacks that of
    the whole model, one saved as a part of a larger model has that one's before it. The table's
    first norm tells, because it is called the same in every weight format.
    """
    probe = next(stored.names[0] for stored in table.values() if _is_vector(stored))
    for spelling in (Spelling(), *spellings):
        if spelling.of(probe) in tensors:
            return respelled(table, spelling)
    return table


def _is_vector(stored: Stored) -> bool:
    return stored.names[0].endswith(".weight")
