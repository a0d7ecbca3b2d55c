"""Adversarial images kept as changes: the same images to the bit, or not so kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergerisk.study.differences import CHANGE, decoded, encoded


def stepped(images: np.ndarray, epsilon: float, steps: int, seed: int) -> np.ndarray:
    """Iterates of sign steps of ε/4 in float32, projected into ball and box as attacks do."""
    draws = np.random.default_rng(seed)
    lower, upper = (np.clip(images + sign * np.float32(epsilon), 0, 1) for sign in (-1, 1))
    found, now = [], images.copy()
    for _ in range(steps):
        signs = draws.integers(-1, 2, size=images.shape).astype(np.float32)
        now = np.clip(now + np.float32(epsilon / 4) * signs, lower, upper)
        found.append(now)
    return np.stack(found).astype(np.float32)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((one.view(np.int32) == other.view(np.int32)).all())


@settings(deadline=None, max_examples=60)
@given(
    epsilon=st.sampled_from([0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 0.031, 0.1, 1.0]),
    steps=st.integers(1, 12),
    seed=st.integers(0, 2**16),
    count=st.integers(1, 4),
    bytes_=st.booleans(),
)
def test_sign_steps_come_back_to_the_bit(epsilon: float, steps: int, seed: int, count: int, bytes_: bool) -> None:
    """Whatever the pixels: of bytes, or any floats, those at the box's edges among them."""
    draws = np.random.default_rng(seed)
    pixels = draws.integers(0, 256, size=(count, 3, 5, 5)) / 255 if bytes_ else draws.random((count, 3, 5, 5))
    images = pixels.astype(np.float32)
    images.flat[:4] = 0, 1, 1e-9, 1 - 2**-24
    adversarial = stepped(images, epsilon, steps, seed)
    kept = encoded(adversarial, images)
    assert kept is not None
    assert kept[CHANGE].shape == adversarial.shape
    assert same_bits(decoded(kept, images), adversarial)
    assert same_bits(decoded(kept, images[1:2], slice(1, 2)), adversarial[:, 1:2])


@pytest.mark.parametrize("epsilon", [2 / 255, 8 / 255])
def test_a_byte_a_pixel_and_a_short_list(epsilon: float) -> None:
    images = (np.random.default_rng(0).integers(0, 256, size=(50, 3, 16, 16)) / 255).astype(np.float32)
    kept = encoded(stepped(images, epsilon, 10, 1)[-1:], images)
    assert kept is not None
    assert kept[CHANGE].dtype == np.uint8
    assert len(kept["change_steps"]) == len(kept["change_digits"]) <= 256


def test_changes_of_all_sizes_are_no_list() -> None:
    draws = np.random.default_rng(0)
    images = draws.random((4, 3, 32, 32)).astype(np.float32)
    noise = draws.normal(0, 0.02, size=(1, *images.shape)).astype(np.float32)
    assert encoded(np.clip(images + noise, 0, 1), images) is None
    assert encoded(np.empty((1, 0, 3, 4, 4), dtype=np.float32), images[:0]) is None


def test_portions_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).random((7, 3, 4, 4)).astype(np.float32)
    adversarial = stepped(images, 4 / 255, 6, 2)
    whole = encoded(adversarial, images)
    monkeypatch.setattr("mergerisk.study.differences._PORTION", 11)
    parts = encoded(adversarial, images)
    assert whole is not None
    assert parts is not None
    assert same_bits(decoded(parts, images), adversarial)
    assert len(parts["change_steps"]) == len(whole["change_steps"])


def test_what_was_kept_whole_is_given_as_it_is() -> None:
    adversarial = np.random.default_rng(0).random((2, 3, 1, 2, 2)).astype(np.float32)
    found = decoded({"adversarial": adversarial}, adversarial[0, 1:2], slice(1, 2))
    assert same_bits(found, adversarial[:, 1:2])
