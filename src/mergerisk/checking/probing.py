"""What a model's own pixels are made of, measured rather than read: with black, white and ramps of grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from mergerisk.checking.as_loaded import Reading

_PHASES = np.array([1, 3, 5]) / 6

_PLACES = 4
"""Decimals of a mean or standard deviation: they are measured in float32."""


@dataclass(frozen=True)
class Preparation:
    """What happens to a picture before a model sees it.

    Attributes:
        size: height and width of what the model sees.
        mean: per channel, subtracted from pixels in [0, 1].
        std: per channel, divides what is left.
        part: left, top, right and bottom of the part that is seen, as shares of the picture's sides.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    part: tuple[float, float, float, float]


def seen_by(reading: Reading, images: torch.Tensor) -> torch.Tensor | None:
    """The pixels that reach a reading's inner model, N × 3 × H × W; None if they cannot be told."""
    found: list[torch.Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.extend(
            given for given in (*inputs, *named.values()) if isinstance(given, torch.Tensor) and given.ndim == 4
        )

    try:
        handle = reading.inner.register_forward_pre_hook(keep, with_kwargs=True)
    except RuntimeError:  # a module of TorchScript
        return None
    try:
        with torch.no_grad():
            reading.module(images)
    finally:
        handle.remove()
    return found[0].float() if found else None


def measure(prepare: Callable[[Image.Image], torch.Tensor | None], size: tuple[int, int]) -> Preparation | None:
    """What is done with pictures.

    Args:
        prepare: picture → prepared pixels, 1 × 3 × H × W; None if they cannot be told.
        size: height and width of the pictures to try.

    Returns:
        None if nothing can be told.
    """
    height, width = size
    levels = [prepare(Image.new("RGB", (width, height), (level,) * 3)) for level in (0, 255)]
    black, white = levels
    if black is None or white is None:
        return None
    low, high = (found.double().mean(dim=(0, 2, 3)) for found in (black, white))
    if not bool((high > low).all()):
        return None
    std = 1 / (high - low)
    mean = -low * std
    ends = []
    for length, axis in ((width, 3), (height, 2)):
        # Each channel is rounded elsewhere, so that their mean has levels three times as fine.
        ramp = np.floor(np.linspace(0, 255, length)[:, None] + _PHASES).astype(np.uint8)
        grid = np.broadcast_to(ramp[None] if axis == 3 else ramp[:, None], (height, width, 3))
        found = prepare(Image.fromarray(np.ascontiguousarray(grid)))
        if found is None:
            return None
        levels_seen = (found[0].double() * std.view(3, 1, 1) + mean.view(3, 1, 1)).mean(dim=(0, 4 - axis))
        ends.append(_ends(levels_seen.numpy(), length))
    return Preparation(
        (black.shape[2], black.shape[3]),
        tuple(round(value, _PLACES) + 0.0 for value in mean.tolist()),
        tuple(round(value, _PLACES) for value in std.tolist()),
        (ends[0][0], ends[1][0], ends[0][1], ends[1][1]),
    )


def _ends(levels: np.ndarray[Any, Any], length: int) -> tuple[float, float]:
    """Where on a side of ``length`` pixels, as shares of it, the first and the last pixel seen begin and end, told
    from the grey levels of its ramp. Edges are extrapolated: filters distort the ramp there."""
    count = len(levels)
    inside = slice(count // 4, max(count - count // 4, count // 4 + 2))
    places = (levels[inside] * (length - 1) + 0.5) / length
    if len(places) < 2:
        return 0.0, 1.0
    step, start = np.polyfit(np.arange(count)[inside], places, 1)
    return float(start - step / 2), float(start + step * (count - 0.5))
