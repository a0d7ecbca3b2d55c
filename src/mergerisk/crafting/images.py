"""Images in a folder: read as pixels in [0, 1], and put together in chunks of one size."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mergerisk.errors import UserError
from mergerisk.seeds import derive_seed
from mergerisk.tasks.arrays import Skipped
from mergerisk.tasks.decoding import (
    FORMATS,
    UnreadableError,
    find_files,
    is_16_bit,
    on_black,
    open_upright,
    quiet,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

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


def image_names(images: Path, table: Path | None) -> list[str]:
    """The names of the files in a folder of images, but for a table of labels that lies there too.

    Raises:
        UserError: no such folder, or one without files.
    """
    names = find_files(images)
    if table is not None:
        names = [name for name in names if (images / name).resolve() != table.resolve()]
    if not names:
        raise UserError(f"{images}: the folder holds no files; give a folder of images")
    return names


def examples(skipped: Sequence[Skipped]) -> str:
    """One of the files that were left out, why, and how many more; empty if there are none."""
    if not skipped:
        return ""
    first = min(skipped)
    return f"; {first.name}: {first.reason}" + (f"; and {len(skipped) - 1} others" if skipped[1:] else "")


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
        except UnreadableError as error:
            skipped.append(Skipped(name, str(error)))
        else:
            images.append(ImageFile(name, folder / name, (pixels.shape[1], pixels.shape[2])))
    return images, skipped


def read_image(path: Path) -> torch.Tensor:
    """An image, upright: float32, 3 × H × W, in [0, 1].

    Grey images become three equal channels, 16-bit ones keep their precision, what is transparent is put on black.

    Raises:
        UserError: it has more than ``MAX_PIXELS`` pixels.
        ValueError: it cannot be read, or is no image.
    """
    with quiet():
        image = open_upright(path, str(path), FORMATS)
        if is_16_bit(image):
            grey = np.array(image).astype(np.float32) / 65535
            return torch.from_numpy(grey).expand(3, -1, -1)
        colours = torch.from_numpy(np.array(on_black(image)))
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
        except UnreadableError as error:
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
