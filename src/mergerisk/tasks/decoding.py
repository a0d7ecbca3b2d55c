"""Image files: found, opened upright, and brought to the bytes that a task keeps. Loads no PyTorch."""

from __future__ import annotations

import io
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mergerisk.disk import refuse_special
from mergerisk.errors import UserError, first_line
from mergerisk.threads import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

S = TypeVar("S")
T = TypeVar("T")

Encoded = Path | bytes | Image.Image
"""An image before it is decoded: a file, its content, or, where none was encoded, the picture itself."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""What is attacked and saved again."""

TASK_FORMATS = (*FORMATS, "GIF", "PPM")
"""What a task may consist of; of an animation, its first picture."""

MAX_PIXELS = 2**25
"""Of one image: 33 million, 400 MB as float32."""

_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""EXIF's tag, and its values for pictures that lie on a side."""

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that end lines or cannot be written."""

PORTION = 64
"""Items that are in the hands of all threads together."""


class UnreadableError(ValueError):
    """Why a file cannot be read as an image."""


def find_files(folder: Path) -> list[str]:
    """The names of all files below a folder, with ``/``, sorted; hidden ones are no one's images.

    Raises:
        UserError: no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: {'a file' if folder.exists() else 'no such folder'}; give a folder of images")

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error

    found = []
    visited: set[str] = set()
    # Links are followed, as to data sets elsewhere; each folder once, since links may form a circle.
    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        visited.add(os.path.realpath(place))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(Path(place, name)) not in visited
        ]
        inside = Path(place).relative_to(folder)
        found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    for name in found:
        with suppress(OSError):  # a link to nothing: said when it is read
            refuse_special(folder / name)
        if _UNFIT.search(name):
            raise UserError(f"{folder}: {name!a}: its name has control characters or is no UTF-8; rename it")
    return sorted(found)


def open_upright(source: Encoded, name: str, formats: tuple[str, ...]) -> Image.Image:
    """A picture, decoded and turned as its EXIF orientation says; of several, the first.

    Args:
        source: the file or its content.
        name: what messages call it.
        formats: that are read, by Pillow's names.

    Raises:
        UserError: it has more than ``MAX_PIXELS`` pixels.
        UnreadableError: it cannot be read, or is no image.
    """
    with _explained(name, formats):
        if isinstance(source, Image.Image):
            return source
        with Image.open(_stream(source), formats=formats) as opened:
            _check_pixels(name, *opened.size)
            opened.load()
            return ImageOps.exif_transpose(opened)


def upright_size(source: Encoded, name: str, formats: tuple[str, ...]) -> tuple[int, int]:
    """Height and width of a picture once it is upright, from its header where that tells.

    Raises:
        UserError: it has more than ``MAX_PIXELS`` pixels.
        UnreadableError: it cannot be read, or is no image.
    """
    with _explained(name, formats):
        if isinstance(source, Image.Image):
            return source.height, source.width
        with Image.open(_stream(source), formats=formats) as opened:
            width, height = opened.size
            _check_pixels(name, width, height)
            sideways = "exif" in opened.info and opened.getexif().get(_ORIENTATION) in _SIDEWAYS
            return (width, height) if sideways else (height, width)


def _stream(source: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


@contextmanager
def _explained(name: str, formats: tuple[str, ...]) -> Iterator[None]:
    """Pillow's errors as ours."""
    try:
        yield
    except (UserError, UnreadableError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError(f"not one of {', '.join(formats)}") from error
    except Image.DecompressionBombError as error:
        raise _too_large(name, "more pixels than Pillow opens") from error
    except Exception as error:  # Pillow has no class of errors for broken files
        raise UnreadableError(getattr(error, "strerror", None) or first_line(error)) from error


def _check_pixels(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} × {height} pixels")


def _too_large(name: str, what: str) -> UserError:
    return UserError(f"{name}: {what}; at most {MAX_PIXELS / 1e6:.0f} million are read; make it smaller")


def on_black(image: Image.Image) -> Image.Image:
    """A picture in RGB, what is transparent put on black.

    Raises:
        UnreadableError: its pixels have no known range.
    """
    if image.mode in {"I", "F"}:
        raise UnreadableError(f"pixels of kind {image.mode} have no known range")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def is_16_bit(image: Image.Image) -> bool:
    """Whether a grey picture has 16 bits per pixel, 0 to 65535."""
    return image.mode.startswith("I;16")


def decode(source: Encoded, name: str, *, size: tuple[int, int] | None, side: int = 0) -> NDArray[np.uint8]:
    """An image as bytes, H × W × 3.

    In this order: the first picture of the file, turned upright; 16 bits rounded to 8; transparency on black;
    grey, palette and CMYK to RGB as Pillow does; where ``size`` is None, the shorter side resized to ``side``
    (bicubic, antialiased) and the middle cut out, as the preprocessing of CLIP does (Radford et al. 2021, arXiv
    2103.00020), with the longer side and the crop's corner rounded down.

    Args:
        source: the file or its content.
        name: what messages call it.
        size: height and width that all images are known to have.
        side: of the square to bring it to, in pixels.

    Raises:
        UserError: it has more than ``MAX_PIXELS`` pixels.
        UnreadableError: it cannot be read, is no image, or not of ``size``.
    """
    image = open_upright(source, name, TASK_FORMATS)
    with _explained(name, TASK_FORMATS):
        if is_16_bit(image):
            image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
        image = on_black(image)
        if size is None:
            image = _resized(image, side)
        elif (image.height, image.width) != size:
            raise UnreadableError(
                f"{image.width} × {image.height} pixels, where all others have {size[1]} × {size[0]}"
            )
        return np.array(image)


def _resized(image: Image.Image, side: int) -> Image.Image:
    shorter = min(image.size)
    width, height = (side if length == shorter else side * length // shorter for length in image.size)
    if width * height > MAX_PIXELS:
        raise UnreadableError(f"{image.width} × {image.height} pixels are too elongated for a square")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if width == height:
        return image
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


@contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's warnings, which are about metadata. Of the whole process: not to be entered in threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def in_threads(
    work: Callable[[S], T], items: Iterable[S], threads: int | None = None, portion: int = PORTION
) -> Iterator[list[T]]:
    """``work`` of every item, in their order, a list of some at a time; no more than two such are in memory.

    Pillow's warnings are silenced until the last list was taken.

    Args:
        work: what is done in threads; it should free the interpreter's lock, as Pillow and hashing do.
        items: taken by the calling thread only, and only as they are needed.
        threads: how many; one per core by default.
        portion: items in a list.
    """
    left = iter(items)
    with quiet(), ThreadPoolExecutor(threads or cores()) as pool:
        # The next portion is worked on while the caller is busy with this one.
        waiting = [pool.submit(work, item) for item in islice(left, portion)]
        try:
            while waiting:
                done = [future.result() for future in waiting]
                waiting = [pool.submit(work, item) for item in islice(left, portion)]
                yield done
        finally:
            for future in waiting:
                future.cancel()
