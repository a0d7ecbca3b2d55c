"""Pictograms: symbols of the DejaVu fonts on coloured tiles, with a shadow and now and then a badge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergerisk.tasks.starter import drawing

if TYPE_CHECKING:
    from mergerisk.tasks.starter.drawing import Pixels

_SYMBOLS = (
    ("anchor", "\N{ANCHOR}"),
    ("cloud", "\N{CLOUD}"),
    ("envelope", "\N{ENVELOPE}"),
    ("heart", "\N{BLACK HEART SUIT}"),
    ("music", "\N{BEAMED EIGHTH NOTES}"),
    ("plane", "\N{AIRPLANE}"),
    ("radiation", "\N{RADIOACTIVE SIGN}"),
    ("scissors", "\N{BLACK SCISSORS}"),
    ("snowman", "\N{SNOWMAN}"),
    ("sun", "\N{BLACK SUN WITH RAYS}"),
    ("telephone", "\N{BLACK TELEPHONE}"),
    ("umbrella", "\N{UMBRELLA}"),
    ("yin_yang", "\N{YIN YANG}"),
)
CLASS_NAMES = tuple(name for name, _ in _SYMBOLS)


def draw(rng: np.random.Generator, label: int) -> Pixels:
    """One picture of the pictogram `CLASS_NAMES[label]`."""
    typeface = "DejaVuSans-Bold" if rng.random() < 0.4 else "DejaVuSans"
    mask = drawing.glyph(typeface, _SYMBOLS[label][1], 64)
    centre = (rng.uniform(0.45, 0.55), rng.uniform(0.45, 0.55))
    ink = drawing.place(
        mask,
        height=rng.uniform(0.65, 0.88),
        centre=centre,
        angle=rng.uniform(-15, 15),
        shear=rng.uniform(-0.15, 0.15),
        stretch=rng.uniform(0.85, 1.15),
        by_longest_side=True,
    )
    x, y = drawing.coordinates(drawing.SIZE)
    # A light symbol on a darker tile.
    tile, colour = drawing.dark_and_light(rng, 0.3)
    desk = drawing.gradient(rng, drawing.any_colour(rng), drawing.any_colour(rng))
    face = drawing.gradient(rng, tile, np.clip(tile + rng.uniform(-0.2, 0.2, 3), 0, 1))
    middle, radius = (centre[0] - 0.5, centre[1] - 0.5), rng.uniform(0.42, 0.56)
    if rng.random() < 0.5:
        shape = drawing.step(radius - np.hypot(x - middle[0], y - middle[1]), 0, 0.04)
    else:
        shape = drawing.box(x, y, middle, (radius, radius), rng.uniform(-0.3, 0.3))
    picture = drawing.paint(desk, shape, face)
    if rng.random() < 0.5:
        shadow = np.roll(ink, (1, 1), axis=(0, 1))
        picture = drawing.paint(picture, 0.5 * shadow, drawing.grey(0))
    fade = rng.uniform(-0.2, 0.2, 3)
    picture = drawing.paint(picture, ink, drawing.gradient(rng, colour, np.clip(colour + fade, 0, 1)))
    if rng.random() < 0.3:  # a round badge hides one corner
        corner = rng.choice([-1, 1], 2) * rng.uniform(0.25, 0.4, 2)
        badge = drawing.step(rng.uniform(0.08, 0.17) - np.hypot(x - corner[0], y - corner[1]), 0, 0.04)
        picture = drawing.paint(picture, badge, drawing.any_colour(rng))
    return drawing.camera(rng, picture, softness=(0.1, 1.0), noise=(0.01, 0.06), shade=0.3)
