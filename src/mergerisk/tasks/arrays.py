"""Tasks as plain arrays: how they are rendered, read from files, and kept. Loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN, TEST, CALIBRATION = 0, 1, 2
"""Split codes, as in the ``split`` array of an ``.npz`` task."""


class Rows(Protocol):
    """Images as bytes, N × H × W × 3, uint8: an array in memory, or rows that are read when asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True, order=True)
class Skipped:
    """A file that is left out.

    Attributes:
        name: its path within the folder.
        reason: why, in words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class TaskArrays:
    """A task before it becomes tensors.

    Attributes:
        images: N × H × W × 3 (or N × H × W, or × 1, for grey); uint8, or floating in [0, 1].
        labels: integers, N.
        split: N codes: 0 train, 1 test, 2 calibration.
        class_names: one name per label.
        held_out: whether the calibration images, if there are to be any, are told by ``split`` already.
        skipped: files that could not be read.
        remarks: what must be said of classes and splits, in sentences.
    """

    images: NDArray[Any] | Rows
    labels: NDArray[np.integer[Any]]
    split: NDArray[np.integer[Any]]
    class_names: tuple[str, ...]
    held_out: bool = False
    skipped: tuple[Skipped, ...] = ()
    remarks: tuple[str, ...] = ()
