"""Images in a folder: found, read as pixels in [0, 1], and put together in chunks of one size."""

from __future__ import annotations

import os
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from mergerisk.errors import UserError
from mergerisk.randomness import derive_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

MAX_PIXELS = 2**25
"""Of one image: 33 million, 400 MB as float32."""

_CHUNK_IMAGES = 256
_CHUNK_PIXELS = 2**24
"""What is in memory at once. Fixed, since attacks may mix the images of a chunk."""


@dataclass(frozen=True, order=True)
class ImageFile:
    """A file that can be read as an image.

    Attributes:
        name: its path within the folder, with ``/``.
        path: where it is.
        size: height and width, once it is upright.
    """

    name: str
    path: Path
    size: tuple[int, int]


@dataclass(frozen=True, order=True)
class Skipped:
    """A file that is left out.

    Attributes:
        name: its path within the folder.
        reason: why, in words.
    """

    name: str
    reason: str


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
    return sorted(found)


def probe_images(
    folder: Path, names: Iterable[str], limit: int | None = None
) -> tuple[list[ImageFile], list[Skipped]]:
    """Decode files, to know which can be read, and how large they are.

    Args:
        folder: the folder.
        names: of the files in it.
        limit: stop after so many that can be read.

    Raises:
        UserError: an image has more than ``MAX_PIXELS`` pixels.
    """
    images: list[ImageFile] = []
    skipped = []
    for name in names:
        if len(images) == limit:
            break
        try:
            pixels = read_image(folder / name)
        except _UnreadableError as error:
            skipped.append(Skipped(name, str(error)))
        else:
            images.append(ImageFile(name, folder / name, (pixels.shape[1], pixels.shape[2])))
    return images, skipped


class _UnreadableError(ValueError):
    """Why a file cannot be read as an image."""


def read_image(path: Path) -> torch.Tensor:
    """An image, upright: float32, 3 × H × W, in [0, 1].

    Grey images become three equal channels, 16-bit ones keep their precision, what is transparent is put on black.

    Raises:
        UserError: it has more than ``MAX_PIXELS`` pixels.
        ValueError: it cannot be read, or is no image.
    """
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as opened:
            warnings.simplefilter("ignore")  # about metadata
            _check_pixels(path, *opened.size)
            opened.load()
            return _pixels(ImageOps.exif_transpose(opened))
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise _UnreadableError(f"not one of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from error
    except Exception as error:  # Pillow has no class of errors for broken files
        raise _UnreadableError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width} × {height} pixels")


def _too_large(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}; at most {MAX_PIXELS / 1e6:.0f} million can be attacked; make it smaller")


def _pixels(image: Image.Image) -> torch.Tensor:
    if image.mode.startswith("I;16"):
        grey = np.array(image).astype(np.float32) / 65535
        return torch.from_numpy(grey).expand(3, -1, -1)
    if image.mode in {"I", "F"}:
        raise _UnreadableError(f"pixels of kind {image.mode} have no known range")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    colours = torch.from_numpy(np.array(image.convert("RGB")))
    return colours.permute(2, 0, 1).float() / 255


def read_batch(files: Iterable[ImageFile]) -> torch.Tensor:
    """Images of one size: float32, N × 3 × H × W.

    Raises:
        UserError: a file changed since it was first read.
    """
    pixels = []
    for file in files:
        try:
            pixels.append(read_image(file.path))
        except _UnreadableError as error:
            raise UserError(f"{file.path}: changed while it was attacked: {error}") from error
        if pixels[-1].shape[1:] != file.size:
            raise UserError(f"{file.path}: changed while it was attacked")
    return torch.stack(pixels)


def balanced(names: Iterable[str], labels: Mapping[str, int], seed: int) -> list[str]:
    """Names in an order that takes as many of each class as it can, wherever one stops.

    Within a class the order is drawn from (seed, name): more files move none of the others. Without labels all
    are one class.
    """
    shuffled = sorted(names, key=lambda name: derive_seed(seed, "order", name))
    seen: Counter[int | None] = Counter()
    rank = {}
    for name in shuffled:
        rank[name] = seen[labels.get(name)]
        seen[labels.get(name)] += 1
    return sorted(shuffled, key=rank.__getitem__)


def chunks(files: Iterable[ImageFile]) -> Iterator[list[ImageFile]]:
    """The images by size, in chunks that fit into memory, in the order given.

    Some attacks mix other classes' images of a chunk in: an order that goes through the classes suits them.
    """
    by_size = defaultdict(list)
    for file in files:
        by_size[file.size].append(file)
    for (height, width), members in sorted(by_size.items()):
        count = max(1, min(_CHUNK_IMAGES, _CHUNK_PIXELS // (height * width)))
        for start in range(0, len(members), count):
            yield members[start : start + count]
