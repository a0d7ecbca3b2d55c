"""One attempt at one stage, in whichever process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from mergerisk.provenance import provenance
from mergerisk.store import LostArtefactError

if TYPE_CHECKING:
    from mergerisk.study.stage import Stage
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        status: ``done``; ``busy``, another run is making it; ``damaged``, the input ``detail`` was not what was
            written and was moved aside, by this attempt or another; ``mistake``, the user's, ``detail`` says
            which; ``fault``, ours, ``detail`` is the traceback.
        seconds: spent computing.
        detail: see ``status``.
    """

    status: Literal["done", "busy", "damaged", "mistake", "fault"]
    seconds: float = 0.0
    detail: str = ""


def attempt(stage: Stage, bench: Workbench, *, wait: bool) -> Outcome:
    """Make a stage's artefact unless it exists or another run is making it."""
    with bench.store.making(stage.key, wait=wait) as ours:
        if not ours:
            return Outcome("busy")
        if bench.store.has(stage.key):  # another run made it in the meantime
            return Outcome("done")
        try:
            return Outcome("done", make_artefact(stage, bench))
        except LostArtefactError as error:
            bench.forget()
            return Outcome("damaged", detail=error.key)


def make_artefact(stage: Stage, bench: Workbench) -> float:
    """Run a stage and keep its result; returns the seconds it took.

    Raises:
        UserError: the stage's material is at fault, or the disk is full.
        DamagedArtefactError: an input failed its checksum.
    """
    start = time.perf_counter()
    result = stage.run(bench)
    seconds = time.perf_counter() - start
    bench.store.put(
        stage.key,
        result.arrays,
        recipe=stage.recipe,
        info=result.info,
        provenance=provenance(bench.compute.device)
        | {"seconds": seconds, "finished": datetime.now(UTC).isoformat(), "label": stage.label},
        compressed=result.compressed,
        spooled=result.spooled,
    )
    return seconds
