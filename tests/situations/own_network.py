"""A user's own network: BatchNorm, tied weights, normalisation inside, no size of its own."""

from __future__ import annotations

import torch
from torch import nn


class Network(nn.Module):
    """Pixels in [0, 1], N × 3 × S × S → 6 features; what it subtracts and divides by is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1))
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.norm = nn.BatchNorm2d(6)
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pixels = (pixels - self.mean) / self.std
        hidden = torch.relu(self.norm(self.stem(pixels))).mean(dim=(2, 3))
        found: torch.Tensor = self.second(torch.tanh(self.first(hidden)))
        return found


def network() -> nn.Module:
    return Network()
