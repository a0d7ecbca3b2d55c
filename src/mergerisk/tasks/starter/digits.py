"""Handwritten digits: scikit-learn's `load_digits` (1797 real scans of 8×8), as light strokes on a dark
ground.

The scans are the test part of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak,
1998). Each scan is used for one picture at most, so no scan falls into two splits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mergerisk.tasks.starter import drawing

if TYPE_CHECKING:
    from mergerisk.tasks.starter.drawing import Floats, Pixels

CLASS_NAMES = tuple("0123456789")


@lru_cache(maxsize=1)
def _scans() -> tuple[tuple[Floats, ...], ...]:
    """The 8×8 scans in [0, 1], grouped by digit."""
    from sklearn.datasets import load_digits

    source = load_digits()
    return tuple(tuple(source.images[source.target == digit] / 16) for digit in range(10))


@lru_cache(maxsize=8)
def _order(seed: int) -> tuple[tuple[int, ...], ...]:
    """Per digit, the order in which the scans are dealt out to pictures."""
    return tuple(
        tuple(int(i) for i in np.random.default_rng((seed, 1_000_003, digit)).permutation(len(scans)))
        for digit, scans in enumerate(_scans())
    )


def draw(rng: np.random.Generator, label: int, turn: int, seed: int) -> Pixels:
    """One picture of digit `label`, made from the `turn`-th scan in that digit's order."""
    scan = _scans()[label][_order(seed)[label][turn]]
    large = np.clip(drawing.resized(np.pad(scan, 1), 60), 0, 1) ** rng.uniform(0.6, 1.5)
    ink = drawing.place(
        Image.fromarray(np.asarray(large * 255, dtype=np.uint8)),
        height=rng.uniform(0.8, 1.0),
        centre=(rng.uniform(0.46, 0.54), rng.uniform(0.46, 0.54)),
        angle=rng.uniform(-10, 10),
        shear=rng.uniform(-0.15, 0.15),
        stretch=rng.uniform(0.9, 1.1),
    )
    x, y = drawing.coordinates(drawing.SIZE)
    if rng.random() < 0.2:  # a stray pen stroke near an edge
        edge = rng.uniform(-0.5, 0.5, 2)
        edge[int(rng.integers(2))] = rng.choice([-0.46, 0.46])
        end = edge + rng.uniform(-0.3, 0.3, 2)
        ink = np.maximum(ink, rng.uniform(0.4, 0.9) * drawing.segment(edge, end, 0.06, x, y))
    paper = rng.uniform(0, 0.12)
    shown = paper + ink * (rng.uniform(0.55, 1.0) - paper)
    pixels = drawing.camera(
        rng,
        np.stack([shown] * 3),
        softness=(0, 0.7),
        noise=(0.01, 0.06),
        light=(0.9, 1.05),
        tint=0.0,
        shade=0.1,
    )
    return np.repeat(pixels[..., :1], 3, axis=2)  # a scanner without colour: the three channels agree
