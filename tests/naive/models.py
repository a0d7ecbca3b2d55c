"""Small classifiers for tests: pixels in [0, 1] to logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def small_classifier(classes: int = 10) -> nn.Sequential:
    """Conv–GELU–conv–GELU–linear on 3×16×16 images: the classifier of the torchattacks vectors."""
    return nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(8, 12, kernel_size=3, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, classes),
    )


class SmoothClassifier(nn.Module):
    """Conv–tanh, a random read-out of every position, tanh, linear: smooth, for any size and channels."""

    def __init__(self, channels: int, height: int, width: int, *, seed: int, classes: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int, scale: float) -> nn.Parameter:
            values = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
            return nn.Parameter(values, requires_grad=False)

        self.kernel = random(5, channels, 3, 3, scale=1.0 / (9 * channels) ** 0.5)
        self.bias = random(5, scale=0.3)
        self.readout = random(5 * height * width, 6, scale=2.0 / (5 * height * width) ** 0.5)
        self.last = random(6, classes, scale=1.0)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = torch.tanh(nn.functional.conv2d((pixels - 0.5) * 3.0, self.kernel, self.bias, padding=1))
        return torch.tanh(maps.flatten(1) @ self.readout) @ self.last


class ConstantClassifier(nn.Module):
    """Logits that do not depend on the pixels: every gradient is exactly zero."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1).sum(dim=1, keepdim=True) * pixels.new_zeros(1, 4)


class NanClassifier(nn.Module):
    """Logits that are NaN for every image."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1).sum(dim=1, keepdim=True) * pixels.new_full((1, 4), float("nan"))
