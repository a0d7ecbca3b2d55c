"""Land cover seen from above, after the idea (not the pictures) of EuroSAT: ten kinds of ground,
procedurally drawn.

Season, haze, light, scale and direction vary so much that colour alone does not tell the classes apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergerisk.tasks.starter import drawing

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.tasks.starter.drawing import Floats, Pixels


def _vegetation(rng: np.random.Generator, value: tuple[float, float] = (0.25, 0.6)) -> Floats:
    """A green, lush or dry."""
    return drawing.colour(rng.uniform(0.2, 0.34), rng.uniform(0.35, 0.6), rng.uniform(*value))


def _earth(rng: np.random.Generator) -> Floats:
    return drawing.colour(rng.uniform(0.06, 0.12), rng.uniform(0.35, 0.6), rng.uniform(0.45, 0.8))


def _water(rng: np.random.Generator) -> Floats:
    return drawing.colour(rng.uniform(0.54, 0.62), rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.6))


def _tarmac(rng: np.random.Generator) -> Floats:
    return drawing.colour(rng.random(), rng.uniform(0, 0.08), rng.uniform(0.5, 0.8))


def _plain(rng: np.random.Generator, ink: Floats, cells: int, depth: float) -> Floats:
    """Ground of one colour, made uneven by noise."""
    field = drawing.cloud_noise(rng, cells, drawing.SUPER)
    return np.clip(ink[:, None, None] * (1 + depth * (field - 0.5)), 0, 1)


def _parcels(rng: np.random.Generator, count: int, inks: list[Floats]) -> Floats:
    """Straight-sided parcels, each of one of the colours."""
    x, y = drawing.turned(rng)
    u, v = x - x.mean(), (y - y.mean()) * rng.uniform(1.0, 1.8)
    nearest, owner = np.full_like(u, np.inf), np.zeros(u.shape, dtype=np.int64)
    for number, (column, row) in enumerate(drawing.scattered(rng, count, 0.75).tolist()):
        distance = np.maximum(np.abs(u - column), np.abs(v - row))
        owner[distance < nearest] = number
        nearest = np.minimum(nearest, distance)
    choice = rng.integers(0, len(inks), int(owner.max()) + 1)
    return np.stack(inks, axis=1)[:, choice[owner]]


def _annual_crop(rng: np.random.Generator) -> Floats:
    inks = [_vegetation(rng, (0.35, 0.75)), _earth(rng), _earth(rng), _vegetation(rng)]
    ground = _parcels(rng, int(rng.integers(5, 13)), inks)
    x, _ = drawing.turned(rng)
    furrows = 1 + rng.uniform(0, 0.12) * np.sin(2 * np.pi * rng.uniform(8, 14) * x)
    return np.asarray(ground * furrows)


def _forest(rng: np.random.Generator) -> Floats:
    leaves = drawing.colour(rng.uniform(0.28, 0.4), rng.uniform(0.4, 0.7), rng.uniform(0.15, 0.32))
    crowns = drawing.smooth_noise(rng, int(rng.integers(12, 24)), drawing.SUPER)
    ground = _plain(rng, leaves, 3, 0.5)
    return ground * (0.5 + crowns)


def _shrubs(rng: np.random.Generator) -> Floats:
    ground = _plain(rng, _earth(rng), 5, 0.4)
    clumps = drawing.cloud_noise(rng, int(rng.integers(5, 9)), drawing.SUPER, 2)
    return drawing.paint(ground, drawing.step(clumps, rng.uniform(0.5, 0.65), 0.15), _vegetation(rng, (0.15, 0.4)))


def _curve(rng: np.random.Generator, bend: float) -> Floats:
    """Distance from a smooth line that crosses the square, in units of its side."""
    along, across = drawing.turned(rng)
    along, across = along - along.mean(), across - across.mean()
    phase, waves = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.1)
    middle = rng.uniform(-0.2, 0.2) + bend * np.sin(2 * np.pi * waves * along + phase)
    return np.asarray(np.abs(across - middle))


def _countryside(rng: np.random.Generator) -> Floats:
    """What roads and rivers run through."""
    if rng.random() < 0.5:
        return _parcels(rng, int(rng.integers(3, 9)), [_vegetation(rng), _vegetation(rng), _earth(rng)])
    return _plain(rng, _vegetation(rng), int(rng.integers(3, 8)), 0.6)


def _highway(rng: np.random.Generator) -> Floats:
    ground = _countryside(rng)
    lane, bend = rng.uniform(0.04, 0.06), rng.uniform(0, 0.06)
    distance = _curve(rng, bend)
    road = drawing.step(-distance, -2 * lane, 0.02)
    ground = drawing.paint(ground, road, tarmac := _tarmac(rng))
    ground = drawing.paint(ground, drawing.step(-distance, -lane * 0.4, 0.02), tarmac * rng.uniform(0.4, 0.8))
    if rng.random() < 0.4:  # a minor road crosses
        ground = drawing.paint(ground, drawing.step(-_curve(rng, 0.03), -0.02, 0.02), tarmac)
    return ground


def _river(rng: np.random.Generator) -> Floats:
    ground = _countryside(rng)
    width = rng.uniform(0.1, 0.18) * (0.8 + 0.5 * drawing.smooth_noise(rng, 3, drawing.SUPER))
    distance = _curve(rng, rng.uniform(0.08, 0.22))
    bank = drawing.step(width - distance, -0.03, 0.05)
    ground = drawing.paint(ground, bank * rng.uniform(0, 0.8), _vegetation(rng, (0.15, 0.35)))
    return drawing.paint(ground, drawing.step(width - distance, 0, 0.03), _water(rng))


def _sea_or_lake(rng: np.random.Generator) -> Floats:
    water = _plain(rng, _water(rng), int(rng.integers(2, 9)), rng.uniform(0.05, 0.3))
    if rng.random() < 0.4:
        return water
    shore = drawing.slope(rng, drawing.SUPER) + 0.3 * (drawing.cloud_noise(rng, 3, drawing.SUPER) - 0.5)
    return drawing.paint(water, drawing.step(shore, rng.uniform(0.2, 0.4), 0.04), _countryside(rng))


def _roofs(
    rng: np.random.Generator, ground: Floats, pitch: float, size: tuple[float, float], inks: list[Floats]
) -> Floats:
    """Rectangular roofs with shadows, one in most cells of a turned lattice."""
    x, y = drawing.turned(rng)
    table = (32, 32)  # larger than the number of cells along a side
    middle, half = rng.uniform(-0.12, 0.12, (2, *table)), rng.uniform(*size, (2, *table)) / 2
    half[:, rng.random(table) < 0.15] = -1  # an empty plot
    ink = np.stack(inks, axis=1)[:, rng.integers(0, len(inks), table)] * rng.uniform(0.8, 1.15, table)

    def roofs(shift: Floats) -> tuple[Floats, Floats]:
        u, v = x / pitch + 16 + shift[0], y / pitch + 16 + shift[1]
        cell = (u.astype(np.int64), v.astype(np.int64))
        inside = np.minimum(
            half[0][cell] - np.abs(u % 1 - 0.5 - middle[0][cell]),
            half[1][cell] - np.abs(v % 1 - 0.5 - middle[1][cell]),
        )
        return drawing.step(inside, 0, 0.025 / pitch), ink[:, *cell]

    shade, _ = roofs(rng.choice([-1, 1], 2) * rng.uniform(0.015, 0.035) / pitch)
    ground = drawing.paint(ground, 0.6 * shade, drawing.grey(0.08))
    return drawing.paint(ground, *roofs(np.zeros(2)))


def _residential(rng: np.random.Generator) -> Floats:
    garden = _plain(rng, _vegetation(rng), 8, 0.7)
    streets, _ = drawing.turned(rng)
    street = drawing.step(np.sin(2 * np.pi * rng.uniform(1.2, 2.2) * streets), 0.86, 0.2)
    garden = drawing.paint(garden, street, _tarmac(rng))
    tiles = [drawing.colour(rng.uniform(0, 0.08), rng.uniform(0.2, 0.65), rng.uniform(0.4, 0.8)) for _ in range(3)]
    return _roofs(rng, garden, rng.uniform(0.15, 0.21), (0.45, 0.75), tiles)


def _industrial(rng: np.random.Generator) -> Floats:
    yard = _plain(rng, _tarmac(rng) * 0.75, 5, 0.4)
    sheets = [
        drawing.colour(rng.choice([0.02, 0.58, 0.6]), rng.uniform(0, 0.35), rng.uniform(0.5, 1)) for _ in range(3)
    ]
    return _roofs(rng, yard, rng.uniform(0.34, 0.52), (0.6, 0.92), sheets)


def _pasture(rng: np.random.Generator) -> Floats:
    meadow = drawing.colour(rng.uniform(0.2, 0.3), rng.uniform(0.45, 0.7), rng.uniform(0.55, 0.8))
    ground = _plain(rng, meadow, 3, 0.3)
    x, y = drawing.turned(rng)
    points = drawing.scattered(rng, int(rng.integers(4, 10)), 0.75)
    near, second = drawing.nearest_two(points, x - x.mean(), y - y.mean())
    gaps = drawing.smooth_noise(rng, 6, drawing.SUPER) > 0.2
    hedge = drawing.step(near - second, -rng.uniform(0.025, 0.05), 0.02) * gaps
    return drawing.paint(ground, hedge, _vegetation(rng, (0.1, 0.25)))


def _orchard(rng: np.random.Generator) -> Floats:
    ground = _plain(rng, _earth(rng), 3, 0.4)
    x, y = drawing.turned(rng, bend=0.04)
    rows, trees = rng.uniform(5, 8), rng.uniform(5, 8)
    distance = np.hypot(rows * x % 1 - 0.5, (trees * y % 1 - 0.5) * rng.uniform(0.5, 1))
    crown = drawing.step(-distance, -rng.uniform(0.28, 0.38), 0.15)
    return drawing.paint(ground, crown, _vegetation(rng, (0.12, 0.35)))


_KINDS: tuple[tuple[str, Callable[[np.random.Generator], Floats]], ...] = (
    ("annual_crop", _annual_crop),
    ("forest", _forest),
    ("highway", _highway),
    ("industrial", _industrial),
    ("orchard", _orchard),
    ("pasture", _pasture),
    ("residential", _residential),
    ("river", _river),
    ("sea_or_lake", _sea_or_lake),
    ("shrubs", _shrubs),
)
CLASS_NAMES = tuple(name for name, _ in _KINDS)


def draw(rng: np.random.Generator, label: int) -> Pixels:
    """One picture of the ground `CLASS_NAMES[label]`."""
    picture = drawing.shrink(np.clip(_KINDS[label][1](rng), 0, 1))
    haze = rng.uniform(0, 0.15)
    picture = picture * (1 - haze) + haze * np.array([0.75, 0.78, 0.85], dtype=np.float32)[:, None, None]
    if rng.random() < 0.15:  # a thin cloud and its shade
        cloud = drawing.step(drawing.cloud_noise(rng, 2), rng.uniform(0.65, 0.85), 0.4)
        picture = drawing.paint(picture, cloud * rng.uniform(0.3, 0.8), drawing.grey(rng.choice([0.1, 0.9])))
    return drawing.camera(
        rng, picture, softness=(0.0, 0.9), noise=(0.01, 0.05), light=(0.8, 1.2), tint=0.06, shade=0.3
    )
