"""How far float32 may take a result from the exact one: bounds for tests, which hold on every processor.

Sums are taken in another order on every kind of processor, so that what one machine gives is no bound.
"""

from __future__ import annotations

import math

UNIT = 2.0**-24
"""The spacing of float32 between 1/2 and 1: rounding moves no pixel in [0, 1] farther, up, down or to the nearest. Also
half the spacing at 1: the relative error of one operation."""


def of_pixels(pixels: int) -> float:
    """How far rounding moves an image of so many pixels in all, in Euclidean length: √pixels times as far as one."""
    return math.sqrt(pixels) * UNIT


def of_length(terms: int) -> float:
    """The relative error of a Euclidean length of so many terms: of their squares' sum, in any order, one rounding
    each at most; the root halves it; and one rounding each for square, root, division by it and the product with a
    step size."""
    return (terms / 2 + 4) * UNIT
