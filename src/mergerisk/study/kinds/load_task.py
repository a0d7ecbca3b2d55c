"""A task's images, labels and splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.keyed import unkeyed
from mergerisk.study.kinds.results import TaskStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.store.keys import Json
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks.arrays import TaskArrays
    from mergerisk.tasks.source import TaskSource

_PORTION = 64
"""Images written to the store at a time."""


@dataclass(frozen=True, kw_only=True)
class LoadTask(TaskStage):
    """Images, labels and split codes: rendered or read, or decoded a portion at a time straight into the store.

    Attributes:
        identity: what the images are told by: digests of files, a commit, or a renderer, and options.
        source: where they come from.
    """

    kind: ClassVar[str] = "task"
    noun: ClassVar[str] = "load tasks"
    version: ClassVar[int] = 3
    rank: ClassVar[int] = 0

    identity: Mapping[str, Json]
    source: TaskSource = unkeyed()

    def run(self, bench: Workbench) -> Result:
        """The task's images, labels and split codes."""
        import numpy as np

        from mergerisk.tasks.from_arrays import stays_bytes

        source = self.source.pinned(self.identity)
        info: dict[str, Json] = {"name": source.name}
        stream = source.stream()
        if stream is None:
            arrays = source.arrays()
            images = np.asarray(arrays.images)
            info |= _about(arrays)
            kept = {"labels": arrays.labels, "split": arrays.split}
            if images.ndim == 4 and images.shape[3] == 3 and stays_bytes(images):
                portions = (images[start : start + _PORTION] for start in range(0, len(images), _PORTION))
                return Result(kept, info, spooled={"images": bench.store.spool(self.key, portions)})
            return Result({"images": images, **kept}, info)
        spooled = bench.store.spool(self.key, stream)
        arrays = stream.arrays(None)
        info |= _about(arrays)
        return Result({"labels": arrays.labels, "split": arrays.split}, info, spooled={"images": spooled})


def _about(arrays: TaskArrays) -> dict[str, Json]:
    """What there is to know of a task besides its arrays."""
    classes: dict[str, Json] = {"class_names": list(arrays.class_names)}
    if not arrays.held_out and not arrays.skipped:
        return classes
    skipped = [{"file": item.name, "reason": item.reason} for item in arrays.skipped]
    return {**classes, "held_out": arrays.held_out, "skipped": skipped}
