"""One attempt at one stage, in whichever process."""

from __future__ import annotations

import os
import socket
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from mergerisk.errors import UserError
from mergerisk.provenance import provenance
from mergerisk.store import LostArtefactError
from mergerisk.study.devices import kind_of
from mergerisk.study.executors.needs import lacking_memory

if TYPE_CHECKING:
    from mergerisk.store import Store
    from mergerisk.study.stage import Stage
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        status: ``done``; ``busy``, another run is making it; ``full``, memory does not suffice; ``damaged``, the
            input ``detail`` was not what was written and was moved aside, by this attempt or another; ``away``,
            the store is not there; ``lost``, whoever made it is gone; ``mistake``, the user's; ``fault``, ours,
            ``detail`` is the traceback.
        seconds: spent computing.
        detail: of the others, what is said of it; see ``status``.
        device: that computed, as ``cuda:1``; empty where nothing was.
        where: the host and the process that did, as ``node7/4711``; likewise.
        peak_bytes: of the machine's memory, at most, by that process; None where that is not known.
        peak_device_bytes: of the GPU's, likewise.
    """

    status: Literal["done", "busy", "full", "damaged", "away", "lost", "mistake", "fault"]
    seconds: float = 0.0
    detail: str = ""
    device: str = ""
    where: str = ""
    peak_bytes: int | None = None
    peak_device_bytes: int | None = None


def is_away(store: Store) -> bool:
    """Whether the store's folder is gone for now: a share that is not mounted, say."""
    return not (store.root / "objects").is_dir()


def is_made(stage: Stage, store: Store) -> bool:
    """Whether a stage's artefact exists, or the only one that needs it does."""
    return store.is_published(stage.key) or (stage.serves is not None and store.is_published(stage.serves))


def attempt(stage: Stage, bench: Workbench, *, wait: bool) -> Outcome:
    """Make a stage's artefact unless it exists or another run is making it."""
    store = bench.store
    if is_away(store):  # to lock something there would make folders where the store belongs
        return Outcome("away")
    try:
        with store.making(stage.key, wait=wait) as ours:
            if not ours:
                return Outcome("busy")
            if is_made(stage, store):  # another run made it in the meantime
                return Outcome("done")
            if lacking := lacking_memory(stage, store, bench.begun):
                return Outcome("full", detail=lacking)
            return make_artefact(stage, bench)
    except (LostArtefactError, UserError, OSError) as error:
        if is_away(store):
            bench.forget()
            return Outcome("away")
        if not isinstance(error, LostArtefactError):
            raise
        bench.forget()
        return Outcome("damaged", detail=error.key)


def attempt_elsewhere(stage: Stage, bench: Workbench, *, wait: bool) -> Outcome:
    """The same in another process than the one that runs the plan: whatever is raised becomes an outcome."""
    try:
        return attempt(stage, bench, wait=wait)
    except UserError as error:
        return Outcome("mistake", detail=str(error))
    except Exception:
        return Outcome("fault", detail=traceback.format_exc())


def make_artefact(stage: Stage, bench: Workbench) -> Outcome:
    """Run a stage and keep its result; returns what it took.

    Raises:
        UserError: the stage's material is at fault, or the disk is full.
        DamagedArtefactError: an input failed its checksum.
    """
    import torch

    from mergerisk.memory import watched

    start = time.perf_counter()
    with watched(torch.device(bench.compute.device)) as memory:
        result = stage.run(bench)
    seconds = time.perf_counter() - start
    bench.store.put(
        stage.key,
        result.arrays,
        recipe=stage.recipe,
        info=result.info,
        provenance=provenance(kind_of(bench.compute.device))
        | memory
        | {"seconds": seconds, "finished": datetime.now(UTC).isoformat(), "label": stage.label},
        compressed=result.compressed,
        spooled=result.spooled,
    )
    for key in stage.spent:
        bench.store.remove(key)
    del result
    bench.tidy()
    return Outcome(
        "done",
        seconds,
        device=bench.compute.device,
        where=f"{socket.gethostname()}/{os.getpid()}",
        peak_bytes=memory.get("peak_bytes"),
        peak_device_bytes=memory.get("peak_device_bytes"),
    )
