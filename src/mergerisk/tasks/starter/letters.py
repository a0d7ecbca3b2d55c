"""Capital letters in twenty-one typefaces, as on posters, book covers and notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageFilter

from mergerisk.tasks.starter import drawing

if TYPE_CHECKING:
    from mergerisk.tasks.starter.drawing import Pixels

CLASS_NAMES = tuple("ABEGHKLMRSTX")

_TYPEFACES = (*drawing.SANS, *drawing.SERIF, *drawing.STIX)


def draw(rng: np.random.Generator, label: int) -> Pixels:
    """One picture of the letter `CLASS_NAMES[label]`."""
    return print_letter(rng, CLASS_NAMES[label])


def print_letter(rng: np.random.Generator, letter: str) -> Pixels:
    """One picture of any printed letter."""
    mask = drawing.glyph(str(rng.choice(_TYPEFACES)), letter)
    weight = rng.random()
    if weight < 0.15:
        mask = mask.filter(ImageFilter.MaxFilter(5))
    ink = drawing.place(
        mask,
        height=rng.uniform(0.6, 0.85),
        centre=(rng.uniform(0.45, 0.55), rng.uniform(0.45, 0.55)),
        angle=rng.uniform(-10, 10),
        shear=rng.uniform(-0.15, 0.15),
        stretch=rng.uniform(0.75, 1.2),
    )
    # Print: dark ink on lighter paper.
    colour, paper = drawing.dark_and_light(rng, 0.3)
    ground = drawing.gradient(rng, paper, np.clip(paper + rng.uniform(-0.25, 0.25, 3), 0, 1))
    x, y = drawing.coordinates(drawing.SIZE)
    ornament = rng.random()
    if ornament < 0.2:  # ruled paper
        turn = rng.uniform(-0.2, 0.2)
        rule = drawing.step(np.sin(2 * np.pi * rng.uniform(3, 7) * (y + turn * x)), 0.85, 0.2)
        ground = drawing.paint(ground, rng.uniform(0.2, 0.6) * rule, drawing.any_colour(rng))
    elif ornament < 0.35:  # a frame or a block of a second colour
        half = rng.uniform(0.2, 0.5, 2)
        block = drawing.box(x, y, rng.uniform(-0.3, 0.3, 2), half, rng.uniform(-0.3, 0.3))
        other = np.clip(paper + rng.uniform(-0.2, 0.2, 3), 0, 1)
        ground = drawing.paint(ground, block, other)
    elif ornament < 0.45:  # stained paper
        stain = drawing.step(drawing.cloud_noise(rng, 3), 0.6, 0.3)
        ground = drawing.paint(ground, rng.uniform(0.1, 0.4) * stain, drawing.any_colour(rng))
    picture = drawing.paint(ground, ink * rng.uniform(0.8, 1), colour)
    if rng.random() < 0.2:  # a scratch through the print, or a fold
        scratch = drawing.segment(rng.uniform(-0.6, 0.6, 2), rng.uniform(-0.6, 0.6, 2), 0.05, x, y)
        picture = drawing.paint(picture, scratch * rng.uniform(0.4, 1), paper)
    return drawing.camera(rng, picture, softness=(0.0, 0.9), noise=(0.01, 0.04), shade=0.4)
