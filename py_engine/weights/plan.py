"""Plans how a model's weights come onto the GPU, from what its index tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from py_engine.errors import UnsupportedModelConfigError
from py_engine.gpu.types import Limits
from py_engine.json_fields import JsonFields, shown
from py_engine.weights.checkpoint import Checkpoint
from py_engine.weights.formats import PLAIN_FORMATS, QUANTIZATIONS, require_known
from py_engine.weights.gguf_config import QUANTIZATION as GGUF_FORMAT
from py_engine.weights.group_packing import group_packing
from py_engine.weights.layouts import Layouts, MatrixPart
from py_engine.weights.matrix_plan import plan_matrix
from py_engine.weights.parameters import MatrixParameter, NameTable, Parameter
from py_engine.weights.tensor_index import TensorIndex
from py_engine.weights.transfers import Transfer, transfers
from py_engine.weights.vector_plan import plan_vector


@dataclass(frozen=True)
class WeightPlan:
    """How a model's weights lie on the GPU, and how they come there.

    `layouts` has the parts of each matrix by role, from which kernels are chosen. `buffers` has
    sizes in bytes: of vectors by role, of parts by the names of `part_buffers`. `transfers` are in
    the order of the files, of which `files` has those that are needed with their sizes.
    """

    layouts: Layouts
    buffers: Mapping[str, int]
    transfers: tuple[Transfer, ...]
    files: Mapping[str, int]

    @property
    def gpu_bytes(self) -> int:
        """Bytes of all buffers together."""
        return sum(self.buffers.values())

    @property
    def download_bytes(self) -> int:
        """Bytes of all files that are needed."""
        return sum(self.files.values())


def plan_weights(
    checkpoint: Checkpoint,
    parameters: Sequence[Parameter],
    names: NameTable,
    limits: Limits,
    quantization: str | None = None,
) -> WeightPlan:
    """Plan the loading of `parameters`, whose tensors `names` gives by role.

    `quantization` is what plain weights are quantised to while they load; None keeps all weights as
    they are stored. Everything that the index can tell is checked here, before anything large is
    read.
    Errors: MissingTensorError, TensorShapeError, UnknownQuantizationError, LimitSupportError,
    UnsupportedModelConfigError.
    """
    wanted = quantization or checkpoint.quantization
    _check_quantization(checkpoint, wanted)
    model = JsonFields(checkpoint.config_json, checkpoint.config_file).object("model_config")
    packing = group_packing(model) if checkpoint.kind == "hf" else None
    index = TensorIndex(checkpoint.index, checkpoint.tensors, checkpoint.quantization, packing)
    layouts: dict[str, tuple[MatrixPart, ...]] = {}
    buffers: dict[str, int] = {}
    found: list[Transfer] = []
    for parameter in parameters:
        stored = names[parameter.role]
        if isinstance(parameter, MatrixParameter):
            plan = plan_matrix(parameter, stored, index, wanted, limits)
            layouts[parameter.role] = plan.parts
            buffers |= plan.buffers
            loads = plan.loads
        else:
            buffers[parameter.role] = parameter.buffer_bytes
            loads = tuple(plan_vector(parameter, stored, index))
        found += [transfer for load in loads for transfer in transfers(load)]
    found.sort(key=lambda transfer: (transfer.file, transfer.begin))
    used = {transfer.file for transfer in found}
    files = {path: size for path, size in checkpoint.files.items() if path in used}
    order = {path: number for number, path in enumerate(files)}
    found.sort(key=lambda transfer: (order[transfer.file], transfer.begin))
    return WeightPlan(layouts, buffers, tuple(found), files)


def _check_quantization(checkpoint: Checkpoint, wanted: str) -> None:
    """Refuse what is not known, and what the stored weights cannot become while they load."""
    stored = checkpoint.quantization
    if stored != GGUF_FORMAT:
        require_known(stored, f"{checkpoint.config_file}: quantization")
    if wanted == stored:
        return
    require_known(wanted, "quantization")
    if wanted not in QUANTIZATIONS or stored not in PLAIN_FORMATS.values():
        known = ", ".join(QUANTIZATIONS)
        raise UnsupportedModelConfigError(
            f"quantization is {shown(wanted)}, but the weights are stored as {stored}. Leave "
            f"quantization away to use them so; unquantised ones may also become {known}."
        )
