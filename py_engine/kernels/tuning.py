"""Which form of a kernel an adapter gets.

What kernels compute is the same in every form. A form that pays was measured on an adapter; all
others have those that run everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from py_engine.gpu.types import AdapterInfo, Limits


@dataclass(frozen=True)
class Tuning:
    """Forms of kernels.

    `lanes` are those of the largest subgroup, None to do without subgroups.
    """

    lanes: int | None = None


PLAIN = Tuning()
"""What runs on every adapter: no subgroups."""


def tuning_for(info: AdapterInfo, limits: Limits) -> Tuning:
    """Return the forms for an adapter with these limits."""
    return Tuning(info.subgroup_size_max)
