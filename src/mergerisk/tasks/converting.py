"""From arrays to tensors in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from mergerisk.errors import UserError
from mergerisk.randomness import generator
from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN
from mergerisk.tasks.task import Split, Task, select_balanced

if TYPE_CHECKING:
    from mergerisk.tasks.arrays import TaskArrays

_HELD_OUT = 256
"""Most calibration images taken from the training split of a task that brings none of its own."""


def to_task(name: str, arrays: TaskArrays) -> Task:
    """Tensors in [0, 1] from arrays.

    A task without calibration images gets them from its training split (a class-balanced quarter of it,
    256 at most), which then no longer trains on them: so they are neither trained on nor attacked.

    Raises:
        UserError: arrays that do not fit each other, values out of range, fewer than two classes.
    """
    images = np.asarray(arrays.images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(f"task {name!r}: images must be N×H×W×3 or N×H×W×1, got {images.shape}")
    if not len(images) == len(arrays.labels) == len(arrays.split):
        raise UserError(
            f"task {name!r}: {len(images)} images, {len(arrays.labels)} labels and {len(arrays.split)} split "
            "codes; there must be one of each per image"
        )
    unknown = set(np.unique(arrays.split).tolist()) - {TRAIN, TEST, CALIBRATION}
    if unknown:
        raise UserError(f"task {name!r}: split codes must be 0 (train), 1 (test) or 2 (calibration)")
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    if images.dtype == np.uint8:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    elif np.issubdtype(images.dtype, np.floating):
        pixels = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    else:
        raise UserError(f"task {name!r}: images must be uint8, or floating in [0, 1], got {images.dtype}")
    pixels = pixels.permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(np.asarray(arrays.labels).astype(np.int64))
    everything = Split(pixels, labels)
    positions = {
        code: torch.from_numpy(np.flatnonzero(np.asarray(arrays.split) == code))
        for code in (TRAIN, TEST, CALIBRATION)
    }
    if not len(positions[CALIBRATION]):
        held_out, kept = _hold_out(labels[positions[TRAIN]])
        positions[CALIBRATION] = positions[TRAIN][held_out]
        positions[TRAIN] = positions[TRAIN][kept]
    return Task(
        name,
        arrays.class_names,
        train=everything[positions[TRAIN]],
        test=everything[positions[TEST]],
        calibration=everything[positions[CALIBRATION]],
    )


def _hold_out(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    held_out = select_balanced(labels, min(_HELD_OUT, len(labels) // 4), generator(0, "hold out"))
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[held_out] = False
    return held_out, kept.nonzero().flatten()
