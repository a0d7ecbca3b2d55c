"""What a stage asks of the machine that makes it, by what it is going to do."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.free_memory import resident_memory, stated_memory
from mergerisk.store import LostArtefactError
from mergerisk.study.kinds.held_out import HeldOut
from mergerisk.study.kinds.load_task import LoadTask

if TYPE_CHECKING:
    from mergerisk.store import Store
    from mergerisk.study.stage import Stage

_PROCESS = 3 * 2**29
"""Bytes: PyTorch and the libraries, and what a workbench keeps between stages."""
_STEP = 2**30
"""Memory is asked for in steps, so that stages that need about the same stand in one line."""
_SMALL = 2**25
"""Bytes of what is not looked at closely."""
_IMAGES = (LoadTask.kind, HeldOut.kind)


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
    and memory for a process and for what it holds, see :func:`held_bytes`.

    Args:
        stage: whose inputs exist.
        store: where.
        device: ``cpu`` or ``cuda``.
    """
    cost = stage.cost()
    asks = any(count for how, count in cost.items() if how == "query")
    computes = not asks and bool(stage.inputs or any(cost.values()))
    return Needs(int(device == "cuda" and computes), in_steps(_PROCESS + held_bytes(stage, store)))


def in_steps(memory: int) -> int:
    """Bytes, rounded up to what is asked for."""
    return -(-memory // _STEP) * _STEP


def held_bytes(stage: Stage, store: Store) -> int:
    """Memory that a stage takes for what it is given, about: for as many models as it holds, as large as the
    largest; and for tasks whose images are no file of rows. Batches are as large as fits beside them.

    Args:
        stage: whose inputs exist; what is not there is found by whoever makes the stage.
        store: where.
    """
    models, images = _given(stage, store)
    return int(stage.held * max(models.values(), default=0)) + sum(images.values())


def large_model(stage: Stage, store: Store) -> str:
    """The key of the largest of what a stage is given besides tasks: of a large model, which takes long to read;
    empty where all are small.

    Args:
        stage: whose inputs exist.
        store: where.
    """
    models, _ = _given(stage, store)
    size, key = max(((size, key) for key, size in models.items()), default=(0, ""))
    return key if size > _SMALL else ""


def _given(stage: Stage, store: Store) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by key of what a stage is given: models and all that is small, and images of tasks."""
    sizes = {key: store.tensor_bytes(key) for key in stage.inputs.values()}
    images = {key: size for key, size in sizes.items() if size > _SMALL and _kind(store, key) in _IMAGES}
    return {key: size for key, size in sizes.items() if key not in images}, images


def _kind(store: Store, key: str) -> str:
    try:
        return str(store.manifest(key)["recipe"]["stage"])
    except LostArtefactError:  # whoever reads it finds out
        return ""


def lacking_memory(stage: Stage, store: Store, begun: int) -> str | None:
    """What a person is told where a stage needs more memory than can be had; None where it does not, or the system
    does not say.

    Args:
        stage: whose inputs exist.
        store: where.
        begun: bytes that this process held before it made any stage: what it has taken since, stages share.
    """
    needed = held_bytes(stage, store)
    if needed <= _SMALL or (free := stated_memory()) is None:
        return None
    free += max(0, (resident_memory() or 0) - begun)
    if needed <= free:
        return None
    there = f"{free / 2**30:.2g} GiB are free on {socket.gethostname()}"
    return (
        f"stage {stage.kind} ({stage.label}) needs about {needed / 2**30:.2g} GiB of memory, and {there}; end "
        "other programs, or use a machine with more or a smaller model: everything finished is kept"
    )
