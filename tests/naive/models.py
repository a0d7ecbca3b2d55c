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
        self.maps = nn.Tanh()

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.maps(nn.functional.conv2d((pixels - 0.5) * 3.0, self.kernel, self.bias, padding=1))
        return torch.tanh(maps.flatten(1) @ self.readout) @ self.last


class ConstantClassifier(nn.Module):
    """Logits that do not depend on the pixels: every gradient is exactly zero."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1).sum(dim=1, keepdim=True) * pixels.new_zeros(1, 4)


class StaircaseClassifier(nn.Module):
    """Class 0 against the rest by ``w·(x - 0.5)``, which counts on rises only: no gradient on the flats between.

    Flats are ``flat`` times as long as the rises, whose length is ``rise``; the score 0 lies in a rise's middle.
    """

    def __init__(self, size: int, *, rise: float, flat: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.register_buffer("weight", torch.randn(size, generator=generator, dtype=torch.float64))
        self.rise, self.period = rise, rise * (1 + flat)

    def forward(self, pixels: Tensor) -> Tensor:
        score = (pixels - 0.5).flatten(1) @ self.weight.to(pixels.dtype)
        stairs = torch.round(score.detach() / self.period)
        climbed = (score - stairs * self.period).clamp(-self.rise / 2, self.rise / 2) + stairs * self.rise
        return torch.stack([climbed, -climbed, -climbed, -climbed], dim=1)


class Recorder(nn.Module):
    """Keeps a copy of every batch the classifier is shown."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.seen: list[Tensor] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels.detach().clone())
        return self.classifier(pixels)


def smooth_problem(
    count: int, channels: int, height: int, width: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[SmoothClassifier, Tensor, Tensor]:
    """A smooth classifier, images of which some pixels lie at 0 and 1, and labels of which some are wrong."""
    generator = torch.Generator().manual_seed(seed)
    classifier = SmoothClassifier(channels, height, width, seed=seed).to(dtype).eval()
    images = torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64) * 1.3 - 0.15
    labels = torch.randint(0, 4, (count,), generator=generator)
    return classifier, images.clamp(0, 1).to(dtype), labels


class NanClassifier(nn.Module):
    """Logits that are NaN for every image."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1).sum(dim=1, keepdim=True) * pixels.new_full((1, 4), float("nan"))
