"""Transforms of pixels against Pillow and SciPy, byte for byte."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image, ImageFilter

import mergerisk as mr
from mergerisk.defenses.content import content_random
from mergerisk.errors import UserError
from tests.defenses.pictures import Flat, as_images, byte_images

TRANSFORMS: dict[str, dict[str, Any]] = {
    "bit_depth": {"bits": 3},
    "jpeg": {"quality": 60},
    "median": {},
    "resize_pad": {"smallest": 0.6},
}
every_transform = pytest.mark.parametrize("name", TRANSFORMS)


def seen_through(name: str, images: torch.Tensor, **parameters: Any) -> torch.Tensor:
    """What the model behind the defense is shown."""
    shown: torch.Tensor = mr.defenses.create(name, **parameters).defend(Flat())(images)
    return shown.view_as(images)


def seen_bytes(name: str, pictures: np.ndarray, **parameters: Any) -> np.ndarray:
    """The same as bytes, N × H × W × C; every pixel must be one, to float32 rounding."""
    scaled = seen_through(name, as_images(pictures), **parameters).double() * 255
    assert float((scaled - scaled.round()).abs().max()) <= 255 * 2**-24
    return scaled.round().movedim(1, -1).numpy().astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [1, 30, 75, 100])
def test_jpeg_is_pillows(quality: int, channels: int) -> None:
    pictures = byte_images(3, channels, 21, 34)
    found = seen_bytes("jpeg", pictures, quality=quality)
    for picture, shown in zip(pictures, found, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture.squeeze()).save(file, format="JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).reshape(picture.shape)
        np.testing.assert_array_equal(shown, expected)
    assert not np.array_equal(found, pictures)


@pytest.mark.parametrize("size", [(3, 3, 21, 34), (2, 1, 3, 5), (1, 3, 1, 1), (1, 3, 2, 1)], ids=str)
@pytest.mark.parametrize("window", [2, 3, 4, 5, 9])
def test_median_is_scipys(window: int, size: tuple[int, int, int, int]) -> None:
    pictures = byte_images(*size)
    found = seen_bytes("median", pictures, size=window)
    expected = scipy.ndimage.median_filter(pictures, size=(1, window, window, 1))
    np.testing.assert_array_equal(found, expected)


def test_median_is_pillows_where_both_mean_the_same() -> None:
    """At a window of three, mirroring an edge and repeating it are one."""
    pictures = byte_images(2, 3, 19, 12)
    found = seen_bytes("median", pictures)
    for picture, shown in zip(pictures, found, strict=True):
        np.testing.assert_array_equal(
            shown, np.asarray(Image.fromarray(picture).filter(ImageFilter.MedianFilter(3)))
        )


def test_resized_and_padded_is_pillows() -> None:
    """Some sizes and places stand for what was drawn: exactly one of Pillow's pictures is what the model sees."""
    pictures = byte_images(12, 3, 31, 31)
    found = seen_bytes("resize_pad", pictures, smallest=0.7, seed=3)
    places = set()
    for picture, shown in zip(pictures, found, strict=True):
        rows, columns = np.nonzero(shown.any(axis=-1))
        top, left, size = rows.min(), columns.min(), np.ptp(rows) + 1
        assert np.ptp(columns) + 1 == size  # no pixel of these pictures is black
        expected = Image.new("RGB", (31, 31))
        expected.paste(Image.fromarray(picture).resize((size, size), Image.Resampling.NEAREST), (left, top))
        np.testing.assert_array_equal(shown, np.asarray(expected))
        places.add((top, left, size))
    assert len(places) > 6
    assert all(size >= round(0.7 * 31) for *_, size in places)


@pytest.mark.parametrize("side", [32, 224])
def test_every_size_shows_the_pixels_that_pillow_shows(side: int) -> None:
    from mergerisk.defenses.resize_pad import _nearest

    line = Image.fromarray(np.arange(side, dtype=np.uint8)[None])
    for length in range(1, side + 1):
        expected = np.asarray(line.resize((length, 1), Image.Resampling.NEAREST))[0]
        np.testing.assert_array_equal(_nearest(side, length), expected)


def test_sizes_and_places_are_equally_likely() -> None:
    """Of 600 pictures of 10 pixels, sizes 8, 9 and 10 by thirds, and places in the free rows evenly: counts within
    four standard deviations of a binomial."""
    images = as_images(byte_images(600, 1, 10, 10)).clamp(min=0.1)
    found = seen_through("resize_pad", images, smallest=0.8) > 0
    sizes = found.any(dim=3).flatten(1).sum(dim=1)
    tops = found.any(dim=3).flatten(1).int().argmax(dim=1)
    for size in (8, 9, 10):
        own = sizes == size
        assert abs(int(own.sum()) - 200) < 4 * (600 * 2 / 9) ** 0.5
        for top in range(11 - size):
            share, count = 1 / (11 - size), int(own.sum())
            assert abs(int((tops[own] == top).sum()) - share * count) <= 4 * (count * share * (1 - share)) ** 0.5


# --- what any of them must keep to -----------------------------------------------------------------------


@every_transform
def test_an_answer_depends_on_the_picture_alone(name: str) -> None:
    images = as_images(byte_images(6, 3, 16, 16))
    together = seen_through(name, images, **TRANSFORMS[name])
    order = [4, 0, 2]
    assert torch.equal(seen_through(name, images[order], **TRANSFORMS[name]), together[order])
    assert torch.equal(
        torch.cat([seen_through(name, one, **TRANSFORMS[name]) for one in images.split(1)]), together
    )


@every_transform
def test_images_stay_as_they_were_and_in_range(name: str) -> None:
    images = as_images(byte_images(2, 3, 16, 16))
    before = images.clone()
    found = seen_through(name, images, **TRANSFORMS[name])
    assert torch.equal(images, before)
    assert found.dtype == images.dtype
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


@every_transform
def test_an_attack_on_the_defended_classifier_runs(name: str) -> None:
    """Its gradient may be zero, but none is missing."""
    images = as_images(byte_images(2, 3, 8, 8))
    defended = mr.defenses.create(name, **TRANSFORMS[name]).defend(Flat())
    crafted = mr.attacks.create("i_fgsm", steps=2).craft(defended, images, [3, 5], epsilon=0.1)
    flat = name in {"bit_depth", "jpeg"}
    assert crafted.zero_gradients.tolist() == ([2, 2] if flat else [0, 0])


def test_what_is_drawn_belongs_to_seed_and_picture() -> None:
    images = as_images(byte_images(8, 3, 16, 16))
    first, again, other = (seen_through("resize_pad", images, smallest=0.5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    draws = content_random(0, "x", images).uniform(4, like=images.double())
    near = content_random(0, "x", images + 0.001).uniform(4, like=images.double())  # the same bytes
    changed = content_random(0, "x", images + 1 / 255).uniform(4, like=images.double())
    assert torch.equal(draws, near)
    assert not bool((draws == changed).any())


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("jpeg", {"quality": 0}, "quality"),
        ("jpeg", {"quality": 101}, "quality"),
        ("median", {"size": 1}, "size"),
        ("resize_pad", {"smallest": 0.0}, "smallest"),
        ("resize_pad", {"smallest": 1.1}, "smallest"),
        ("smoothing", {"sigma": 0.0}, "sigma"),
        ("smoothing", {"alpha": 1.0}, "alpha"),
        ("smoothing", {"n": 0}, "n:"),
    ],
)
def test_wrong_hyperparameters_are_said_in_a_line(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mr.defenses.create(name, **given)


def test_jpeg_of_two_channels_is_refused() -> None:
    with pytest.raises(UserError, match="1 or 3 channels"):
        seen_through("jpeg", torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
