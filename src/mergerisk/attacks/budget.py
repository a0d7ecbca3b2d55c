"""Budgets: the ball around each image that a perturbation may not leave, cut with the pixel box.

What an attack does inside a ball is written once for every norm: project a point, take the steepest unit step,
and know how large a perturbation of some size is per pixel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import torch

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from mergerisk.randomness import ImageRandom

Norm = Literal["linf", "l2"]
"""``linf``: the largest change of a pixel; ``l2``: the Euclidean length of an image's change, over all its pixels
and channels. Both in pixel units, [0, 1]."""

_CACHED = 2**14
"""Numbers of which a processor's cache holds a few tensors in float64."""


class Ball(ABC):
    """The images within ``epsilon`` of ``images``, in [0, 1].

    Attributes:
        images: N × C × H × W, the centres.
        epsilon: radius in pixel units.
    """

    def __init__(self, images: torch.Tensor, epsilon: float) -> None:
        self.images = images.detach()
        self.epsilon = epsilon

    @abstractmethod
    def project(self, points: torch.Tensor) -> torch.Tensor:
        """The points put back into ball and box, exactly: by no rounding do they exceed ε in float64."""

    @abstractmethod
    def unit(self, directions: torch.Tensor) -> torch.Tensor:
        """The step of length 1 that gains most along each direction; zero where the direction is."""

    @abstractmethod
    def per_pixel(self, radius: float) -> float:
        """How much a perturbation of this length changes a pixel, if it changes all alike."""

    @abstractmethod
    def start(self, random: ImageRandom) -> torch.Tensor:
        """A random point of every ball, uniform, then clipped to the box."""

    @abstractmethod
    def lengths(self, points: torch.Tensor) -> torch.Tensor:
        """float64, N: how far each point is from its image."""


class LinfBall(Ball):
    """Every pixel changes by at most ε."""

    def __init__(self, images: torch.Tensor, epsilon: float) -> None:
        super().__init__(images, epsilon)
        self.lower, self.upper = torch.empty_like(self.images), torch.empty_like(self.images)
        # A few images at a time: what fits into a processor's cache takes a fourth of the time.
        some = max(1, _CACHED // max(1, self.images[:1].numel()))
        tensors = (self.images, self.lower, self.upper)
        for few, lower, upper in zip(*(tensor.split(some) for tensor in tensors), strict=True):
            exact = few.double()
            for corner, side in ((lower, -1), (upper, 1)):
                corner.copy_(_round_towards(few, exact + side * epsilon, epsilon).clamp_(0.0, 1.0))

    def project(self, points: torch.Tensor) -> torch.Tensor:
        return points.clamp(self.lower, self.upper)

    def unit(self, directions: torch.Tensor) -> torch.Tensor:
        return directions.sign()

    def per_pixel(self, radius: float) -> float:
        return radius

    def start(self, random: ImageRandom) -> torch.Tensor:
        draws = random.noise(like=self.images)
        return self.project(self.images + self.epsilon * (2 * draws - 1))

    def lengths(self, points: torch.Tensor) -> torch.Tensor:
        return (points.double() - self.images.double()).abs().amax(dim=(1, 2, 3))


class L2Ball(Ball):
    """An image's change, as one vector, has at most length ε."""

    def project(self, points: torch.Tensor) -> torch.Tensor:
        exact = self.images.double()
        # The box first: clipping to it never takes a point farther from an image inside it.
        change = points.double().clamp(0.0, 1.0) - exact
        length = _norm(change)
        limit = self.epsilon * (1 - 1e-12)  # a hair less, for the rounding of the length itself
        share = torch.where(length > limit, limit / length, 1.0)
        return _round_towards(self.images, exact + share * change, (share * change).abs())

    def unit(self, directions: torch.Tensor) -> torch.Tensor:
        # Scaled first: squares of tiny gradients would underflow.
        largest = directions.abs().amax(dim=(1, 2, 3), keepdim=True)
        scaled = directions / largest.where(largest > 0, 1.0)
        length = _norm(scaled)
        return scaled / length.where(length > 0, 1.0)

    def per_pixel(self, radius: float) -> float:
        return radius / math.sqrt(self.images[0].numel())

    def start(self, random: ImageRandom) -> torch.Tensor:
        direction = self.unit(random.normal(like=self.images))
        # Volume grows with the number of pixels as exponent, so nearly all of a ball is near its surface.
        share = random.uniform(1, like=self.images) ** (1 / self.images[0].numel())
        return self.project(self.images + self.epsilon * share[..., None, None] * direction)

    def lengths(self, points: torch.Tensor) -> torch.Tensor:
        return _norm(points.double() - self.images.double()).flatten()


def ball(norm: Norm, images: torch.Tensor, epsilon: float) -> Ball:
    """The balls of radius ``epsilon`` around ``images``.

    Args:
        norm: ``linf`` or ``l2``.
        images: N × C × H × W, floating, in [0, 1].
        epsilon: in pixel units: at most 1 for ``linf``, at most √(C H W) for ``l2``.

    Raises:
        UserError: an unknown norm, or a radius out of range.
    """
    if norm not in ("linf", "l2"):
        raise UserError(f"unknown norm {norm!r}: linf or l2")
    largest = 1.0 if norm == "linf" else math.sqrt(images[0].numel()) if len(images) else math.inf
    if not 0.0 <= epsilon <= largest:
        hint = "; pixels do, so 8/255 is written 8/255" if norm == "linf" else ""
        raise UserError(f"epsilon must lie in [0, {largest:g}], got {epsilon:g}{hint}")
    return (LinfBall if norm == "linf" else L2Ball)(images, epsilon)


def _norm(change: torch.Tensor) -> torch.Tensor:
    length: torch.Tensor = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
    return length


def _round_towards(images: torch.Tensor, exact: torch.Tensor, limit: torch.Tensor | float) -> torch.Tensor:
    """``exact`` (float64) in the images' dtype, no farther from the images than ``limit``."""
    rounded = exact.to(images.dtype)
    farther = (rounded.double() - images.double()).abs() > limit
    return torch.where(farther, torch.nextafter(rounded, images), rounded)
