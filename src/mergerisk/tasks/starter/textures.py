"""Textures, after the idea (not the pictures) of the Describable Textures Dataset: a pattern's kind is its
class.

Scale, direction, bend, colours and light are drawn afresh for every picture, so none of them tells the class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergerisk.tasks.starter import drawing

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.tasks.starter.drawing import Floats, Pixels


def _banded(rng: np.random.Generator) -> Floats:
    x, _ = drawing.turned(rng, most=0.25, bend=0.12)
    count = rng.uniform(4, 6)
    return drawing.step(np.sin(2 * np.pi * count * x), rng.uniform(-0.3, 0.3), 0.5)


def _chequered(rng: np.random.Generator) -> Floats:
    x, y = drawing.turned(rng, most=0.25, bend=0.1)
    count = rng.uniform(2.5, 3.5)
    return drawing.step(np.sin(2 * np.pi * count * x) * np.sin(2 * np.pi * count * y), 0, 0.4)


def _grid(rng: np.random.Generator) -> Floats:
    x, y = drawing.turned(rng, most=0.25, bend=0.1)
    count = rng.uniform(3.5, 5)
    width = rng.uniform(0.06, 0.13)
    line = np.minimum(np.abs(count * x % 1 - 0.5), np.abs(count * rng.uniform(0.9, 1.1) * y % 1 - 0.5))
    return drawing.step(-line, -width, 0.08)


def _honeycombed(rng: np.random.Generator) -> Floats:
    x, y = drawing.coordinates()
    x = x + 0.05 * drawing.smooth_noise(rng, 3, drawing.SUPER)
    pitch, turn = rng.uniform(0.2, 0.26), rng.uniform(-0.2, 0.2)
    column, row = np.meshgrid(np.arange(-6, 7), np.arange(-7, 8))
    lattice = np.stack([column + 0.5 * (row % 2), row * np.sqrt(0.75)], axis=-1).reshape(-1, 2) * pitch
    lattice = lattice @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    lattice = lattice + rng.uniform(0, pitch, 2)
    near, second = drawing.nearest_two(lattice[np.abs(lattice).max(axis=1) < 0.5 + pitch], x, y)
    return drawing.step(near - second, -pitch * rng.uniform(0.14, 0.28), 0.03)


def _zigzagged(rng: np.random.Generator) -> Floats:
    x, y = drawing.turned(rng, most=0.25, bend=0.06)
    teeth, count = rng.uniform(3, 4), rng.uniform(3.5, 4.5)
    saw = np.abs(teeth * x % 1 - 0.5) * 2
    return drawing.step(np.sin(2 * np.pi * (count * y + rng.uniform(0.6, 1.1) * saw)), rng.uniform(-0.3, 0.3), 0.6)


def _swirly(rng: np.random.Generator) -> Floats:
    x, y = drawing.coordinates()
    x, y = x + rng.uniform(-0.1, 0.1), (y + rng.uniform(-0.1, 0.1)) * rng.uniform(0.9, 1.1)
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    arms = int(rng.integers(1, 3))
    phase = arms * turn + 2 * np.pi * rng.uniform(4, 6) * radius + rng.uniform(0, 2 * np.pi)
    return drawing.step(np.sin(phase), rng.uniform(-0.3, 0.3), 0.6)


def _cracked(rng: np.random.Generator) -> Floats:
    x, y = drawing.turned(rng, most=0.25, bend=0.15)
    points = drawing.scattered(rng, int(rng.integers(20, 32)), 0.8)
    near, second = drawing.nearest_two(points, x - x.mean(), y - y.mean())
    return drawing.step(near - second, -rng.uniform(0.02, 0.04), 0.02)


def _woven(rng: np.random.Generator) -> Floats:
    x, y = drawing.turned(rng, most=0.25, bend=0.06)
    count = rng.uniform(3, 4)
    u, v = count * x, count * y
    over = (np.floor(u) + np.floor(v)) % 2
    strand = np.where(over > 0, np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5))
    shine = np.where(over > 0, np.abs(v % 1 - 0.5), np.abs(u % 1 - 0.5))
    return np.asarray(np.clip((0.95 - 0.8 * shine) * drawing.step(-strand, -0.36, 0.15), 0, 1))


def _speckled(rng: np.random.Generator) -> Floats:
    field = drawing.smooth_noise(rng, int(rng.integers(20, 32)), drawing.SUPER)
    return drawing.step(field, rng.uniform(0.62, 0.75), 0.1)


def _blotchy(rng: np.random.Generator) -> Floats:
    field = drawing.cloud_noise(rng, int(rng.integers(4, 8)), drawing.SUPER, 2)
    return drawing.step(field, rng.uniform(0.4, 0.6), 0.06)


_KINDS: tuple[tuple[str, Callable[[np.random.Generator], Floats]], ...] = (
    ("banded", _banded),
    ("blotchy", _blotchy),
    ("chequered", _chequered),
    ("cracked", _cracked),
    ("grid", _grid),
    ("honeycombed", _honeycombed),
    ("speckled", _speckled),
    ("swirly", _swirly),
    ("woven", _woven),
    ("zigzagged", _zigzagged),
)
CLASS_NAMES = tuple(name for name, _ in _KINDS)


def draw(rng: np.random.Generator, label: int) -> Pixels:
    """One picture of the texture `CLASS_NAMES[label]`."""
    pattern = drawing.shrink(_KINDS[label][1](rng))
    low, high = drawing.dark_and_light(rng, 0.3)  # a lighter pattern on a darker ground
    grain = 1 + rng.uniform(0, 0.35) * (drawing.cloud_noise(rng, 8) - 0.5)
    ground = drawing.gradient(rng, low, np.clip(low + rng.uniform(-0.15, 0.15, 3), 0, 1))
    picture = drawing.paint(ground, pattern, high) * grain
    return drawing.camera(rng, picture, softness=(0.0, 0.8), noise=(0.01, 0.05), shade=0.4)
