"""Images and classifiers for the tests of defenses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Flat(torch.nn.Module):
    """What it is shown, as logits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


class Linear(torch.nn.Module):
    """Class 1 where w·x + b is positive, else 0; counts the images that it is shown."""

    def __init__(self, weight: torch.Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.bias = bias
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        score = images.flatten(1) @ self.weight.to(images) + self.bias
        return torch.stack([-score, score], dim=1) / 2


def byte_images(count: int, channels: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """N × H × W × C: a slope with noise on it, as pictures are neither flat nor noise."""
    draws = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    slope = (rows * 3 + columns * 5)[None, :, :, None] * draws.uniform(0, 2, (count, 1, 1, channels))
    return np.clip(slope + draws.normal(60, 25, (count, height, width, channels)), 0, 255).astype(np.uint8)


def as_images(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """N × C × H × W, float32, in [0, 1]."""
    return torch.from_numpy(pictures).movedim(-1, 1).contiguous() / 255
