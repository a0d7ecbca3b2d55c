"""Street numbers: a digit in the middle, neighbours at its sides, over patches of real photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergerisk.tasks.starter import drawing

if TYPE_CHECKING:
    from mergerisk.tasks.starter.drawing import Pixels

CLASS_NAMES = tuple("0123456789")


def draw(rng: np.random.Generator, label: int) -> Pixels:
    """One picture whose middle digit is `label`; up to two other digits stand beside it and are cut off."""
    typeface = str(rng.choice((*drawing.SANS, *drawing.SERIF, *drawing.STIX)))
    wall = drawing.photo_patch(rng)
    # Light figures on a darker wall or plate.
    paper, ink = drawing.dark_and_light(rng, 0.35)
    if rng.random() < 0.75:  # a plate or a painted wall: the photograph shows through
        wall = drawing.paint(wall, np.full(wall.shape[1:], rng.uniform(0.45, 0.9), dtype=np.float32), paper)
    else:
        wall = wall * rng.uniform(0.35, 0.7)
        ink = drawing.grey(rng.uniform(0.85, 1.0))
    height = rng.uniform(0.62, 0.85)
    angle, shear, stretch = rng.uniform(-7, 7), rng.uniform(-0.12, 0.12), rng.uniform(0.85, 1.15)
    middle = np.array([rng.uniform(0.46, 0.54), rng.uniform(0.46, 0.54)])
    mask = np.zeros((drawing.SIZE, drawing.SIZE), dtype=np.float32)
    figures = [(CLASS_NAMES[label], 0.0)]
    figures += [(CLASS_NAMES[int(rng.integers(10))], side) for side in (-1.0, 1.0) if rng.random() < 0.45]
    gap = height * rng.uniform(0.68, 0.85)
    for figure, side in figures:
        turn = np.deg2rad(angle)
        centre = middle + side * gap * np.array([np.cos(turn), -np.sin(turn)])
        mask = np.maximum(
            mask,
            drawing.place(
                drawing.glyph(typeface, figure),
                height=height,
                centre=(float(centre[0]), float(centre[1])),
                angle=angle,
                shear=shear,
                stretch=stretch,
            ),
        )
    if rng.random() < 0.4:  # a shadow under raised figures
        shadow = np.roll(mask, (1, int(rng.choice([-1, 1]))), axis=(0, 1))
        wall = drawing.paint(wall, 0.6 * shadow, drawing.grey(0))
    picture = drawing.paint(wall, mask, ink)
    return drawing.camera(rng, picture, softness=(0.2, 1.1), noise=(0.01, 0.05), shade=0.5)
