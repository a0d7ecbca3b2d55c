"""Tasks as plain arrays: how they are rendered, read from files, and kept. Loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN, TEST, CALIBRATION = 0, 1, 2
"""Split codes, as in the ``split`` array of an ``.npz`` task."""


@dataclass(frozen=True)
class TaskArrays:
    """A task before it becomes tensors.

    Attributes:
        images: N × H × W × 3 (or N × H × W, or × 1, for grey); uint8, or floating in [0, 1].
        labels: integers, N.
        split: N codes: 0 train, 1 test, 2 calibration.
        class_names: one name per label.
    """

    images: NDArray[Any]
    labels: NDArray[np.integer[Any]]
    split: NDArray[np.integer[Any]]
    class_names: tuple[str, ...]
