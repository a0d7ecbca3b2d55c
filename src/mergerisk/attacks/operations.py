"""Ways to change an image as a whole, each of which draws one view of it."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from mergerisk.attacks._transforms import partition
from mergerisk.attacks.inputs import Admix, SpectrumInputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.attacks.attack import Problem

    Operation = Callable[[torch.Tensor, Problem], torch.Tensor]
    """One image, 1 × C × H × W, and the problem of attacking it alone → one view of it, of the same shape."""

Family = Literal[
    "identity", "rotate", "scale", "resize", "shuffle", "admix", "drop", "mask", "spectrum", "crop", "shift"
]
"""What may happen to an image, nine or ten strengths of each but the first. ``rotate`` about its centre; ``scale``
its values by 1/2ⁱ; ``resize``: grow, place on a larger canvas, and shrink back; ``shuffle`` blocks; ``admix`` a
share of another class's image; ``drop`` single values; ``mask`` one block; ``spectrum``: noise, then random
factors of the cosine transform; ``crop`` the middle and enlarge it; ``shift`` by at most a pixel down and right.
What comes into sight is black."""

_COPIES = 5
"""Forms of a rotation, crop or shift, each weaker than the one before it or after it; one is drawn."""


def _draw(problem: Problem, *shape: int) -> torch.Tensor:
    """float64, on the CPU: the image's next numbers in [0, 1)."""
    return problem.random.uniform(*shape, like=torch.empty(0, dtype=torch.float64))[0]


def _one_of(problem: Problem, count: int) -> int:
    return int(float(_draw(problem, 1)) * count)


def _identity(image: torch.Tensor, problem: Problem) -> torch.Tensor:  # noqa: ARG001
    return image


def _rotate(image: torch.Tensor, problem: Problem, *, degrees: float) -> torch.Tensor:
    angle = math.radians(degrees) / 2 ** _one_of(problem, _COPIES)
    down, across = _offsets(image)
    return _seen(
        image,
        math.sin(angle) * across + math.cos(angle) * down,
        math.cos(angle) * across - math.sin(angle) * down,
    )


def _shift(image: torch.Tensor, problem: Problem, *, pixels: float) -> torch.Tensor:
    moved = pixels * (_one_of(problem, _COPIES) + 1) / _COPIES
    down, across = _offsets(image)
    return _seen(image, (down - moved).expand(image.shape[-2:]), (across - moved).expand(image.shape[-2:]))


def _offsets(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float64, H × 1 and 1 × W: how far every pixel lies below and right of the image's centre."""
    down, across = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in image.shape[-2:])
    return down[:, None], across[None]


def _seen(image: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """What lies at these places (H × W, in pixels from the centre), bilinear."""
    height, width = image.shape[-2:]
    grid = torch.stack([2 * across / width, 2 * down / height], dim=-1)
    seen: torch.Tensor = F.grid_sample(image, grid.to(image)[None], align_corners=False)
    return seen


def _scale(image: torch.Tensor, problem: Problem, *, copies: int) -> torch.Tensor:
    halvings = _one_of(problem, copies)
    return image * 0.5**halvings


def _resize(image: torch.Tensor, problem: Problem, *, largest: float) -> torch.Tensor:
    grown, *place = _draw(problem, 3).tolist()
    own = tuple(image.shape[-2:])
    canvas = [int(largest * side) for side in own]
    sides = [side + int(grown * (most - side)) for side, most in zip(own, canvas, strict=True)]
    top, left = (int(part * (most - side)) for part, side, most in zip(place, sides, canvas, strict=True))
    (height, width), (tall, wide) = canvas, sides
    bigger = F.interpolate(image, (tall, wide), mode="bilinear", align_corners=False)
    padded = F.pad(bigger, (left, width - wide - left, top, height - tall - top))
    return F.interpolate(padded, own, mode="bilinear", align_corners=False)


def _shuffle(image: torch.Tensor, problem: Problem, *, blocks: int) -> torch.Tensor:
    first, second = (-2, -1) if float(_draw(problem, 1)) < 0.5 else (-1, -2)

    def shuffled(pixels: torch.Tensor, dim: int) -> list[torch.Tensor]:
        strips = pixels.split(partition(_draw(problem, blocks), pixels.shape[dim]).tolist(), dim)
        return [strips[place] for place in _draw(problem, blocks).argsort().tolist()]

    return torch.cat([torch.cat(shuffled(strip, second), second) for strip in shuffled(image, first)], first)


def _admix(image: torch.Tensor, problem: Problem, *, share: float) -> torch.Tensor:
    (mixed,) = Admix(mixes=1, share=share, scales=1).views(image, problem)
    halvings = _one_of(problem, 3)
    return mixed * 0.5**halvings


def _drop(image: torch.Tensor, problem: Problem, *, chances: tuple[float, ...]) -> torch.Tensor:
    chance = chances[_one_of(problem, len(chances))]
    return image * (problem.random.noise(like=image) >= chance)


def _mask(image: torch.Tensor, problem: Problem, *, blocks: int) -> torch.Tensor:
    rows, columns = (_block(_one_of(problem, blocks), blocks, side) for side in image.shape[-2:])
    kept = torch.ones_like(image)
    kept[..., rows, columns] = 0.0
    return image * kept


def _block(place: int, blocks: int, side: int) -> slice:
    first, last = (round(side / blocks * edge) for edge in (place, place + 1))
    return slice(first, last)


def _spectrum(image: torch.Tensor, problem: Problem, *, spread: float, noise: float) -> torch.Tensor:
    (view,) = SpectrumInputs(spectra=1, spread=spread, noise=noise).views(image, problem)
    return view


def _crop(image: torch.Tensor, problem: Problem, *, smallest: float) -> torch.Tensor:
    ratio = smallest + (1 - smallest) * (_one_of(problem, _COPIES) + 1) / _COPIES
    height, width = own = tuple(image.shape[-2:])
    tall, wide = (max(1, int(ratio * side)) for side in own)
    top, left = (height - tall) // 2, (width - wide) // 2
    middle = image[..., top : top + tall, left : left + wide]
    return F.interpolate(middle, own, mode="bilinear", align_corners=False)


_CHANCES = (
    (0.1,),
    (0.1, 0.2),
    (0.1, 0.2, 0.3),
    (0.1, 0.2, 0.3, 0.4),
    (0.1, 0.2, 0.3, 0.4, 0.5),
    (0.2, 0.3, 0.4, 0.5),
    (0.1, 0.3, 0.4, 0.5),
    (0.1, 0.2, 0.4, 0.5),
    (0.1, 0.2, 0.3, 0.5),
    (0.1, 0.2, 0.3, 0.4),
)


def operations(noise: float, leave_out: tuple[Family, ...] = ()) -> list[Operation]:
    """The operations of L2T's authors' code, 98 if no family is left out.

    Args:
        noise: standard deviation of the spectrum's noise, as a share of ε.
        leave_out: families of which there is none.
    """
    tenths = [count / 10 for count in range(1, 10)]
    families: dict[Family, list[Operation]] = {
        "identity": [_identity],
        "rotate": [partial(_rotate, degrees=30.0 * count) for count in range(1, 11)],
        "scale": [partial(_scale, copies=count) for count in range(1, 11)],
        "resize": [partial(_resize, largest=1 + count / 20) for count in range(2, 12)],
        "shuffle": [partial(_shuffle, blocks=count) for count in range(3, 13)],
        # Strengths are one to five partners, of which one is drawn in any case.
        "admix": [partial(_admix, share=share) for share in (0.2, 0.4) for _ in range(5)],
        "drop": [partial(_drop, chances=chances) for chances in _CHANCES],
        "mask": [partial(_mask, blocks=count) for count in range(2, 12)],
        "spectrum": [partial(_spectrum, spread=spread, noise=noise) for spread in tenths],
        "crop": [partial(_crop, smallest=smallest) for smallest in tenths],
        "shift": [partial(_shift, pixels=0.5 + count / 20) for count in range(9)],
    }
    return [one for family, strengths in families.items() if family not in leave_out for one in strengths]
