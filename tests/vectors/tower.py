"""A small transformer, for vectors of a method that has to know blocks, and its file format."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIDE, PATCH, WIDTH, HEADS, DEPTH = 8, 4, 8, 2, 3
TASKS = ("one", "two", "three")


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """N × tokens × width → the same."""
        count, length, _ = tokens.shape
        split = self.qkv(self.norm1(tokens)).reshape(count, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.mT / (WIDTH // HEADS) ** 0.5, dim=-1)
        attended = (weights @ value).transpose(1, 2).reshape(count, length, WIDTH)
        tokens = tokens + self.out(attended)
        hidden: Tensor = tokens + self.narrow(torch.tanh(self.wide(self.norm2(tokens))))
        return hidden


class Tower(nn.Module):
    """Patches, blocks, and the mean over tokens: N × 3 × SIDE × SIDE → N × WIDTH."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(torch.zeros(1, (SIDE // PATCH) ** 2, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))

    def embedded(self, pixels: Tensor) -> Tensor:
        """What the first block is given."""
        tokens: Tensor = self.patches(pixels).flatten(2).mT + self.positions
        return tokens

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.embedded(pixels)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.mean(dim=1)
