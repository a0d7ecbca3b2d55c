"""Factories of backbones, good and bad."""

from __future__ import annotations

import torch
from torch import nn


class Small(nn.Module):
    """A convolution and its mean over positions: pixels → 5 features."""

    image_size: int

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.convolution(pixels)).mean(dim=(2, 3))
        return out


def small() -> nn.Module:
    made = Small()
    made.image_size = 12
    return made


def scaling() -> nn.Module:
    made = small()
    made.mean, made.std = torch.tensor([0.1, 0.2, 0.3]), [0.4, 0.5, 0.6]
    return made


def sizeless() -> nn.Module:
    return Small()


def half() -> nn.Module:
    return small().half()


def maps() -> nn.Module:
    made = nn.Conv2d(3, 5, 3)
    made.image_size = 12
    return made


def whole() -> nn.Module:
    class Counts(nn.Module):
        image_size = 12

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.flatten(1).sum(dim=1, keepdim=True).long()

    return Counts()


def tuples() -> nn.Module:
    class Pair(nn.Module):
        image_size = 12

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return pixels.flatten(1), pixels

    return Pair()


def fussy() -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(3, 5))
    made.image_size = 12
    return made


def poisoned() -> nn.Module:
    made = small()
    with torch.no_grad():
        made.convolution.weight[0] = torch.nan
    return made


def broken() -> nn.Module:
    raise KeyError("weights")


def number() -> int:
    return 3
