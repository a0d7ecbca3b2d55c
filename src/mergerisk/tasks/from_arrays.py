"""From arrays to tensors in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mergerisk.errors import UserError
from mergerisk.randomness import generator
from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN
from mergerisk.tasks.images import LazyImages
from mergerisk.tasks.numbering import empty_remarks
from mergerisk.tasks.task import Split, Task, select_balanced

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mergerisk.tasks.arrays import Rows, TaskArrays
    from mergerisk.tasks.images import Images

HELD_OUT = 256
"""Most calibration images taken from the training split of a task that brings none of its own."""

_TENSOR_BYTES = 2**29
"""Of the largest float32 tensor that images become; more of them stay bytes."""


def to_task(name: str, arrays: TaskArrays) -> Task:
    """Tensors in [0, 1] from arrays.

    A task without calibration images gets them from its training split (a class-balanced quarter of it,
    256 at most), which then no longer trains on them: so they are neither trained on nor attacked.

    Raises:
        UserError: arrays that do not fit each other, values out of range, fewer than two classes.
    """
    count = arrays.images.shape[0] if arrays.images.shape else 0
    if not count == len(arrays.labels) == len(arrays.split):
        raise UserError(
            f"task {name!r}: {count} images, {len(arrays.labels)} labels and {len(arrays.split)} split "
            "codes; there must be one of each per image"
        )
    if np.ndim(arrays.split) != 1:
        raise UserError(f"task {name!r}: split must be one code per image, got {np.shape(arrays.split)}")
    unknown = set(np.unique(arrays.split).tolist()) - {TRAIN, TEST, CALIBRATION}
    if unknown:
        raise UserError(f"task {name!r}: split codes must be 0 (train), 1 (test) or 2 (calibration)")
    labels = torch.from_numpy(np.asarray(arrays.labels).astype(np.int64))
    everything = Split(_pixels(name, arrays.images), labels)
    positions = {
        code: torch.from_numpy(np.flatnonzero(np.asarray(arrays.split) == code))
        for code in (TRAIN, TEST, CALIBRATION)
    }
    if not len(positions[CALIBRATION]) and not arrays.held_out:
        held_out, kept = hold_out(labels[positions[TRAIN]], 0, HELD_OUT)
        positions[CALIBRATION] = positions[TRAIN][held_out]
        positions[TRAIN] = positions[TRAIN][kept]
    remarks = arrays.remarks
    if not arrays.held_out:  # of others it was said when they were chosen
        remarks += empty_remarks(arrays.class_names, labels.numpy(), np.asarray(arrays.split).astype(np.int64))
    return Task(
        name,
        arrays.class_names,
        train=everything.subset(positions[TRAIN]),
        test=everything.subset(positions[TEST]),
        calibration=everything.subset(positions[CALIBRATION]),
        skipped=arrays.skipped,
        remarks=remarks,
    )


def _pixels(name: str, images: NDArray[Any] | Rows) -> Images:
    """N × 3 × H × W in [0, 1]: a tensor, or lazy where that would be large or the images are not in memory."""
    if not isinstance(images, np.ndarray):
        return LazyImages(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        raise UserError(f"task {name!r}: images must be N×H×W×3 or N×H×W×1, got {images.shape}")
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    if images.dtype == np.uint8:
        if stays_bytes(images):
            return LazyImages(images)
        pixels = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    elif np.issubdtype(images.dtype, np.floating):
        pixels = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    else:
        raise UserError(f"task {name!r}: images must be uint8, or floating in [0, 1], got {images.dtype}")
    return pixels.permute(0, 3, 1, 2).contiguous()


def stays_bytes(images: NDArray[Any] | Rows) -> bool:
    """Whether images are kept as bytes, since as a float32 tensor they would be large."""
    return not isinstance(images, np.ndarray) or (images.dtype == np.uint8 and 4 * images.nbytes > _TENSOR_BYTES)


def hold_out(labels: torch.Tensor, seed: int, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of training images that become calibration images, at most a quarter of them, and of the rest."""
    held_out = select_balanced(labels, min(most, len(labels) // 4), generator(seed, "hold out"))
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[held_out] = False
    return held_out, kept.nonzero().flatten()
