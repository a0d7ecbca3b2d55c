"""Adversarial images as 8-bit files keep them: rounded, and still within their budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.attacks.budget import LinfBall, ball
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from mergerisk.attacks.budget import Norm

_RESOLUTION = 2.0**-24
"""How far a float32 pixel may lie from the value in a file that it stands for."""

_SLACK = 1e-9
"""In bytes, for float64's rounding: 8/255 is eight bytes, not a hair less."""


def exact_pixels(images: torch.Tensor) -> torch.Tensor:
    """What floating pixels in [0, 1] stand for, in float64: the 8 or 16-bit value next to them, if float32 tells
    them apart from no other; else themselves."""
    scaled = images.double() * 65535
    whole = scaled.round()
    return torch.where((scaled - whole).abs() <= 65535 * _RESOLUTION, whole, scaled) / 65535


def round_to_bytes(
    adversarial: torch.Tensor, images: torch.Tensor, epsilon: float, norm: Norm = "linf"
) -> torch.Tensor:
    """Adversarial images in 8 bits, within ``epsilon`` of :func:`exact_pixels` of ``images``, and in the box.

    Every pixel gets the nearest byte that the budget allows. Where, for ``l2``, the nearest bytes together leave
    the ball, pixels go back towards the image by one byte: first those that rounding took farther from it, and
    of these those that change most.

    Args:
        adversarial: N × C × H × W, floating, in [0, 1].
        images: the clean images, of the same shape.
        epsilon: the budget in pixel units.
        norm: ``linf`` or ``l2``.

    Returns:
        uint8, N × C × H × W.

    Raises:
        UserError: no bytes lie within the budget, as may be where images have more than 8 bits.
    """
    exact = exact_pixels(images)
    budget = ball(norm, exact, epsilon)
    wanted = 255 * adversarial.double()
    nearest = wanted.round().clamp(0, 255)
    if isinstance(budget, LinfBall):
        lowest, highest = (255 * budget.lower - _SLACK).ceil(), (255 * budget.upper + _SLACK).floor()
        if bool((lowest > highest).any()):
            raise UserError(_too_small(epsilon, "0.5/255"))
        return nearest.clamp(lowest, highest).to(torch.uint8)
    return _shortened(nearest, wanted, 255 * exact, 255 * epsilon).to(torch.uint8)


def _shortened(rounded: torch.Tensor, wanted: torch.Tensor, centre: torch.Tensor, radius: float) -> torch.Tensor:
    """``rounded``, taken back towards ``centre`` until it is at most ``radius`` away; all in bytes."""
    home = centre.round()
    while True:
        square = (rounded - centre).square()
        excess = square.sum(dim=(1, 2, 3)) - (radius + _SLACK) ** 2
        if not bool((excess > 0).any()):
            return rounded
        nearer = rounded + (home - rounded).sign()
        gain = square - (nearer - centre).square()
        outward = (rounded - centre).abs() > (wanted - centre).abs()
        first = torch.where(outward, gain + 255.0**2, gain).flatten(1).argsort(dim=1, descending=True, stable=True)
        ordered = gain.flatten(1).gather(1, first)
        chosen = (ordered.cumsum(dim=1) - ordered < excess[:, None]) & (ordered > 0)
        if not bool(chosen.any(dim=1)[excess > 0].all()):
            shortest = float(square.sum(dim=(1, 2, 3)).max().sqrt()) / 255
            raise UserError(_too_small(radius / 255, f"{shortest:.3g}"))
        back = torch.zeros_like(chosen).scatter(1, first, chosen).view_as(rounded)
        rounded = torch.where(back, nearer, rounded)


def _too_small(epsilon: float, enough: str) -> str:
    return (
        f"epsilon {epsilon:.3g} is less than rounding these images to 8 bits changes; "
        f"raise it to {enough}, or give images with 8 bits"
    )
