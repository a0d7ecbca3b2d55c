"""What a stage asks of the machine that makes it, by what it is going to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergerisk.store import Store
    from mergerisk.study.stage import Stage

_PROCESS = 3 * 2**29
"""Bytes: PyTorch and the libraries, and what a workbench keeps between stages."""
_HELD, _TRAINED = 3, 5
"""Models at a time: the base, the last one and one more; and weights in training, with gradients and moments."""
_STEP = 2**30
"""Memory is asked for in steps, so that stages that need about the same stand in one line."""


@dataclass(frozen=True)
class Needs:
    """What a stage asks for besides a core.

    Attributes:
        gpus: 0 or 1.
        memory: bytes.
    """

    gpus: int
    memory: int


def needs_of(stage: Stage, store: Store, device: str) -> Needs:
    """A GPU, if there are any and the stage passes images through models or computes on models of other stages;
    and memory for a process, and for as many models as it holds, as large as the largest that it is given.

    Args:
        stage: whose inputs exist.
        store: where.
        device: ``cpu`` or ``cuda``.
    """
    cost = stage.cost()
    asks = any(count for how, count in cost.items() if how == "query")
    largest = max((store.tensor_bytes(key) for key in stage.inputs.values()), default=0)
    memory = _PROCESS + (_TRAINED if cost.get("training") else _HELD) * largest
    computes = not asks and bool(stage.inputs or any(cost.values()))
    return Needs(int(device == "cuda" and computes), -(-memory // _STEP) * _STEP)
