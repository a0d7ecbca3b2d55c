"""A task's calibration images, to be attacked instead of its test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.kinds.results import TaskStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from mergerisk.store.keys import Json
    from mergerisk.study.keyed import Input
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Split, Task

_PORTION = 64
"""Images that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class HeldOut(TaskStage):
    """A task whose test images are another's calibration images, and which has no others: what can be attacked,
    and chosen by, without a look at what is attacked in the end.

    Attributes:
        task: the other.
    """

    kind: ClassVar[str] = "held_out"
    noun: ClassVar[str] = "hold images out"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 1

    task: Input[Task]

    def run(self, bench: Workbench) -> Result:
        """The images, as bytes where they are bytes, their labels, and the split code of test images."""
        import numpy as np

        from mergerisk.tasks.arrays import TEST

        task = bench.task(self.task)
        split = task.calibration
        skipped = [{"file": item.name, "reason": item.reason} for item in task.skipped]
        info: dict[str, Json] = {
            "name": task.name,
            "class_names": list(task.class_names),
            "held_out": True,
            "skipped": skipped,
        }
        kept = {"labels": split.labels.numpy(), "split": np.full(len(split), TEST, dtype=np.int64)}
        if all(_bytes(portion) is not None for portion in _portions(split)):
            portions = (found for portion in _portions(split) if (found := _bytes(portion)) is not None)
            return Result(kept, info, spooled={"images": bench.store.spool(self.key, portions)})
        return Result({"images": np.concatenate([*_portions(split)]), **kept}, info)


def _portions(split: Split) -> Iterator[NDArray[np.float32]]:
    """N × H × W × 3 in [0, 1], a part of the images at a time."""
    for start in range(0, len(split), _PORTION):
        yield split.images[start : start + _PORTION].movedim(1, -1).contiguous().numpy()


def _bytes(images: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """The bytes that images in [0, 1] are made of; None if they are not."""
    import numpy as np

    found = np.rint(images * 255).astype(np.uint8)
    return found if np.array_equal(found.astype(np.float32) / np.float32(255), images) else None
