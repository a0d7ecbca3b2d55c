"""What becomes of every kind of picture, against plain transcriptions; and of what is none."""

from __future__ import annotations

import io
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from mergerisk.errors import UserError
from mergerisk.tasks import decoding
from mergerisk.tasks.decoding import TASK_FORMATS, UnreadableError, decode, in_threads, upright_size
from tests.tasks.material import encoded, pixels

if TYPE_CHECKING:
    from pathlib import Path


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes, **options: Any) -> np.ndarray[Any, Any]:
    size = upright_size(content, "x", TASK_FORMATS) if "side" not in options else None
    return decode(content, "x", size=size, **options)


@pytest.mark.parametrize(("height", "width"), [(30, 47), (47, 30), (31, 31), (20, 20), (7, 90)])
@pytest.mark.parametrize("side", [20, 33])
def test_resizing_equals_a_plain_transcription(height: int, width: int, side: int) -> None:
    """CLIP's: the shorter side bicubic to ``side``, the other in proportion, the centre cut out."""
    content = encoded(1, height, width, "JPEG")
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    if width <= height:
        image = image.resize((side, int(side * height / width)), resample=Image.Resampling.BICUBIC)
    else:
        image = image.resize((int(side * width / height), side), resample=Image.Resampling.BICUBIC)
    full = np.asarray(image)
    top, left = (full.shape[0] - side) // 2, (full.shape[1] - side) // 2
    expected = full[top : top + side, left : left + side]
    assert np.array_equal(decoded(content, side=side), expected)


def test_resizing_equals_the_preprocessing_of_clip_in_transformers() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = Image.fromarray(pixels(3, 40, 61))
    made = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    expected = made(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    found = decoded(saved(image, "PNG"), side=24)
    assert np.array_equal(found, np.asarray(expected).transpose(1, 2, 0).astype(np.uint8))


def test_own_size_changes_no_pixel() -> None:
    assert np.array_equal(decoded(encoded(4, 5, 9)), pixels(4, 5, 9))
    for kind in ("BMP", "TIFF", "PPM"):
        assert np.array_equal(decoded(saved(Image.fromarray(pixels(4, 5, 9)), kind)), pixels(4, 5, 9))


def test_grey_palette_and_cmyk() -> None:
    grey = pixels(0)[..., 0]
    assert np.array_equal(decoded(saved(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, axis=2))
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([1, 0])
    assert decoded(saved(palette, "PNG"))[0].tolist() == [[0, 0, 255], [255, 0, 0]]
    cmyk = Image.new("CMYK", (2, 2), (0, 255, 0, 0))
    assert np.abs(decoded(saved(cmyk, "TIFF"))[0, 0].astype(int) - [255, 0, 255]).max() <= 1


def test_transparency_is_put_on_black() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 100, 50, 255), (200, 100, 50, 0), (200, 100, 50, 102)])
    assert decoded(saved(image, "PNG"))[0].tolist() == [[200, 100, 50], [0, 0, 0], [80, 40, 20]]
    named = Image.new("P", (2, 1))
    named.putpalette([255, 255, 255, 0, 0, 255])
    named.putdata([0, 1])
    assert decoded(saved(named, "PNG", transparency=0))[0].tolist() == [[0, 0, 0], [0, 0, 255]]


def test_16_bits_are_rounded_to_8() -> None:
    levels = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    expected = np.round(levels.astype(np.float64) * 255 / 65535).astype(np.uint8)
    assert np.array_equal(decoded(saved(Image.fromarray(levels), "PNG"))[..., 1], expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation: int) -> None:
    stored = np.zeros((16, 32, 3), dtype=np.uint8)
    stored[:8, :16] = 255  # the stored picture's top left corner is bright
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(stored), "JPEG", exif=exif, quality=95)
    # Where row 0 and column 0 of the stored picture are to be seen (EXIF 2.3, section 4.6.4, tag 274).
    corner = [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0), (0, 1), (1, 1), (1, 0)][orientation - 1]
    shape = (16, 32) if orientation <= 4 else (32, 16)
    found = decoded(content)
    assert upright_size(content, "x", TASK_FORMATS) == found.shape[:2] == shape
    means = [
        [
            found[r * shape[0] // 2 :][: shape[0] // 2, c * shape[1] // 2 :][:, : shape[1] // 2].mean()
            for c in (0, 1)
        ]
        for r in (0, 1)
    ]
    assert np.unravel_index(np.argmax(means), (2, 2)) == corner


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_picture_of_an_animation_counts(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert decoded(content)[0, 0].tolist() == [255, 0, 0]


def test_a_phones_multi_picture_jpeg_is_a_jpeg() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    assert decoded(saved(frames[0], "MPO", save_all=True, append_images=frames[1:])).min() > 250


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "not one of PNG"),
        (b"", "not one of PNG"),
        (encoded(0, 40, 40)[:-200], "truncated"),
        (saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "no known range"),
        (saved(Image.new("RGB", (1, 500_000)), "PNG"), "too elongated"),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason) as caught:
        decoded(content, side=224)
    assert "\n" not in str(caught.value)


def test_too_many_pixels_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(0, 20, 30)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 599)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(UserError, match="x: 30 × 20 pixels; at most"):
        decoded(content, side=8)


def test_a_picture_of_another_size_is_not_forced(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(0, 4, 5))
    with pytest.raises(UnreadableError, match="5 × 4 pixels, where all others have 8 × 8"):
        decode(tmp_path / "a.png", "a.png", size=(8, 8))


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_no_order_and_hold_few_items(threads: int) -> None:
    taken = 0
    ahead = []

    def items() -> Any:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    done = []
    for portion in in_threads(lambda number: number * number, items(), threads):
        ahead.append(taken - len(done))
        done += portion
    assert done == [number * number for number in range(1000)]
    assert max(ahead) <= 128


def test_warnings_of_pillow_are_silent_in_threads_and_afterwards_as_before() -> None:
    def warn(number: int) -> int:
        warnings.warn("metadata", UserWarning, stacklevel=1)
        return number

    before = list(warnings.filters)
    assert [n for portion in in_threads(warn, range(200), 2) for n in portion] == list(range(200))
    assert list(warnings.filters) == before


def test_a_failure_in_a_thread_reaches_the_caller_and_ends_the_others() -> None:
    def fail(number: int) -> int:
        if number == 70:
            raise UserError("seventy")
        return number

    with pytest.raises(UserError, match="seventy"):
        list(in_threads(fail, range(1000), 3))
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]
