"""Rounding to 8 bits, held to the budget in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergerisk.attacks import ball
from mergerisk.attacks.rounding import exact_pixels, round_to_bytes
from mergerisk.errors import UserError


def pixels(levels: int, seed: int) -> torch.Tensor:
    """Integers 0 … ``levels``, 2 × 3 × 4 × 4, the ends among them."""
    random = torch.Generator().manual_seed(seed)
    found = torch.randint(0, levels + 1, (2, 3, 4, 4), generator=random)
    found[:, :, 0, 0], found[:, :, 0, 1] = 0, levels
    return found


def attacked(images: torch.Tensor, epsilon: float, norm: str, seed: int) -> torch.Tensor:
    """Points of the ball, many on its surface, as attacks leave them."""
    random = torch.Generator().manual_seed(seed)
    within = ball(norm, images, epsilon)
    return within.project(images + 2 * epsilon * torch.randn(images.shape, generator=random))


seeds = st.integers(0, 10_000)
halves = st.integers(1, 60).map(lambda count: Fraction(count, 510))


@settings(max_examples=60, deadline=None)
@given(epsilon=halves, seed=seeds)
def test_linf_takes_the_nearest_byte_that_the_budget_allows(epsilon: Fraction, seed: int) -> None:
    levels = pixels(255, seed)
    images = levels.float() / 255
    adversarial = attacked(images, float(epsilon), "linf", seed)
    saved = round_to_bytes(adversarial, images, float(epsilon)).long()
    most = int(255 * epsilon)
    nearest = (255 * adversarial.double()).round().long()
    assert torch.equal(saved, nearest.clamp(levels - most, levels + most))
    assert int((saved - levels).abs().max()) == most, "the whole budget can be used"


@settings(max_examples=60, deadline=None)
@given(epsilon=halves, seed=seeds)
def test_linf_holds_around_16_bit_images(epsilon: Fraction, seed: int) -> None:
    levels = pixels(65535, seed)
    images = levels.float() / 65535
    saved = round_to_bytes(attacked(images, float(epsilon), "linf", seed), images, float(epsilon))
    for byte, level in zip(saved.flatten().tolist(), levels.flatten().tolist(), strict=True):
        assert abs(Fraction(byte, 255) - Fraction(level, 65535)) <= epsilon


@settings(max_examples=60, deadline=None)
@given(epsilon=st.floats(0.004, 2.0), seed=seeds)
def test_l2_holds_and_gives_up_no_more_than_rounding_all_towards_the_image(epsilon: float, seed: int) -> None:
    levels = pixels(255, seed)
    images = levels.float() / 255
    adversarial = attacked(images, epsilon, "l2", seed)
    saved = round_to_bytes(adversarial, images, epsilon, "l2").long()
    squares = (saved - levels).square().sum(dim=(1, 2, 3))
    for square in squares.tolist():
        assert square <= (255 * Fraction(epsilon)) ** 2 * (1 + Fraction(1, 10**9)) + Fraction(1, 10**8)
    towards = (255 * adversarial.double() - levels + 1e-9).trunc().long()
    assert bool((squares >= towards.square().sum(dim=(1, 2, 3)) - 1).all())


@settings(max_examples=30, deadline=None)
@given(epsilon=st.floats(0.05, 2.0), seed=seeds)
def test_l2_holds_around_16_bit_images(epsilon: float, seed: int) -> None:
    levels = pixels(65535, seed)
    images = levels.float() / 65535
    saved = round_to_bytes(attacked(images, epsilon, "l2", seed), images, epsilon, "l2").long()
    lengths = (257 * saved - levels).double().square().sum(dim=(1, 2, 3)).sqrt() / 65535
    assert bool((lengths <= epsilon * (1 + 1e-9)).all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_already_is_in_bytes_stays(norm: str) -> None:
    levels = pixels(255, 0).clamp(8, 247)
    images = levels.float() / 255
    steps = torch.where(pixels(1, 1) == 1, 8, -8)
    length = {"linf": 8 / 255, "l2": 8 / 255 * 48**0.5}[norm]
    saved = round_to_bytes((levels + steps).float() / 255, images, length, norm)
    assert torch.equal(saved.long(), levels + steps)


def test_each_image_has_a_budget_of_its_own() -> None:
    images = pixels(255, 3).float() / 255
    far, near = attacked(images, 1.0, "l2", 3)[:1], attacked(images, 0.1, "l2", 4)[1:]
    together = round_to_bytes(torch.cat([far, near]), images, 0.5, "l2")
    alone = torch.cat([round_to_bytes(a, i, 0.5, "l2") for a, i in ((far, images[:1]), (near, images[1:]))])
    assert torch.equal(together, alone)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.3 / 255), ("l2", 0.01)])
def test_a_budget_below_the_precision_of_bytes_is_refused(norm: str, epsilon: float) -> None:
    images = torch.full((1, 3, 4, 4), 100.5 / 255)
    with pytest.raises(UserError, match="raise it to"):
        round_to_bytes(images, images, epsilon, norm)


def test_exact_pixels_are_what_files_hold() -> None:
    for levels in (255, 65535):
        values = torch.arange(levels + 1)
        assert torch.equal(exact_pixels(values.float() / levels), values.double() / levels)
    between = torch.tensor([0.3000001])
    assert torch.equal(exact_pixels(between), between.double())
