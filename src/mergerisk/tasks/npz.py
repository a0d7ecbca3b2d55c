"""Tasks in ``.npz`` files."""

from __future__ import annotations

import math
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from PIL import Image

from mergerisk.errors import UserError, first_line, shown_text
from mergerisk.free_memory import free_memory
from mergerisk.tasks.arrays import TaskArrays
from mergerisk.tasks.class_names import check_names, one_form
from mergerisk.tasks.numbering import numbered, numbered_remark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from mergerisk.tasks.listing import Listing


def read_npz(path: Path) -> TaskArrays:
    """Arrays ``images``, ``labels``, ``split`` and, if present, ``class_names`` from an ``.npz`` file.

    Nothing is unpickled.

    Raises:
        UserError: no such file, not an ``.npz``, or an array is missing.
    """
    if not path.is_file():
        what = "a folder" if path.exists() else "no such file"
        raise UserError(f"{path}: {what}; give the path of an .npz file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: cannot be read as .npz: no archive, as numpy.savez writes it")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {name: _bytes_of(archive, path, name) for name in ("images", "labels", "split")}
            if f"class_names{_MEMBER}" in archive.namelist():
                sizes["class_names"] = _bytes_of(archive, path, "class_names")
        _check_memory(path, sum(sizes.values()))
        with np.load(path, allow_pickle=False) as arrays:
            return _checked(path, {name: arrays[name] for name in sizes})
    except UserError:
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError, SystemError) as error:
        raise UserError(f"{path}: cannot be read as .npz: {shown_text(first_line(error))}") from error


_MEMBER = ".npy"

_HEADERS = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}


def _bytes_of(archive: zipfile.ZipFile, path: Path, name: str) -> int:
    """Bytes of one array, from what its header says and the archive holds, which must agree.

    Raises:
        UserError: there is no such array, or they do not.
    """
    member = next((info for info in archive.infolist() if info.filename in {name, f"{name}{_MEMBER}"}), None)
    if member is None:
        raise UserError(f"{path}: array {name!r} is missing; needed are images, labels and split")
    with archive.open(member) as file:
        try:
            version = read_magic(file)
            shape, _, dtype = _HEADERS[version](file)
        except Exception as error:  # whatever a header makes NumPy's parser do
            raise UserError(f"{path}: {name!r} is no array, as numpy.savez writes it") from error
        begins = file.tell()
    if dtype.hasobject:
        raise UserError(f"{path}: {name!r} holds Python objects, which are not read; save numbers or text")
    claimed, held = math.prod(shape) * dtype.itemsize, member.file_size - begins
    if claimed != held:
        raise UserError(f"{path}: {name!r} should have {claimed:,} bytes, {shape} of {dtype}, but has {held:,}")
    return claimed


def _check_memory(path: Path, needed: int) -> None:
    free = free_memory()
    if needed > free:
        raise UserError(
            f"{path}: its arrays unpack to {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are free"
            "; give a folder of images, which is read piece by piece"
        )


def _checked(path: Path, arrays: Mapping[str, NDArray[Any]]) -> TaskArrays:
    images, labels, split = (arrays[name] for name in ("images", "labels", "split"))
    if not np.issubdtype(labels.dtype, np.integer) or labels.size == 0 or labels.ndim != 1:
        raise UserError(f"{path}: labels must be integers, one per image, got {labels.dtype}, {labels.shape}")
    if not np.issubdtype(split.dtype, np.integer) or split.ndim != 1:
        raise UserError(f"{path}: split must be integers, one per image, got {split.dtype}, {split.shape}")
    if "class_names" in arrays:
        if arrays["class_names"].ndim != 1:
            raise UserError(f"{path}: class_names must be a list of names, got {arrays['class_names'].shape}")
        named = tuple(one_form(str(name)) for name in arrays["class_names"])
        check_names(named, str(path))
        return TaskArrays(images, labels, split, named)
    if labels.max() - (labels.min() == 1) >= labels.size:
        raise UserError(
            f"{path}: label {labels.max()} among {labels.size} images; labels are 0, 1, …, one per class"
        )
    names, first = numbered(labels.astype(np.int64))
    return TaskArrays(images, labels - first, split, names, remarks=numbered_remark(names, first))


def list_npz(path: Path) -> Listing:
    """The images of an ``.npz`` file as a listing, from which a task may take some.

    Raises:
        UserError: as :func:`read_npz`; or the images are not uint8, N × H × W (× 1 or 3).
    """
    from mergerisk.tasks.listing import Listing

    arrays = read_npz(path)
    images = np.asarray(arrays.images)
    if (
        images.dtype != np.uint8
        or images.ndim not in (3, 4)
        or (images.ndim == 4 and images.shape[3] not in (1, 3))
    ):
        raise UserError(f"{path}: options need 8-bit images, N×H×W×3 or N×H×W, got {images.dtype}, {images.shape}")
    labels, split = arrays.labels.astype(np.int64), arrays.split.astype(np.int64)
    if not len(images) == len(labels) == len(split):
        raise UserError(f"{path}: {len(images)} images, {len(labels)} labels and {len(split)} split codes")
    if labels.min() < 0 or labels.max() >= len(arrays.class_names):
        raise UserError(f"{path}: labels must lie in 0 to {len(arrays.class_names) - 1}")
    if not set(np.unique(split).tolist()) <= {0, 1, 2}:
        raise UserError(f"{path}: split codes must be 0 (train), 1 (test) or 2 (calibration)")

    def read(positions: NDArray[np.int64]) -> Iterator[Image.Image]:
        for position in positions.tolist():
            image = images[position]
            yield Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)

    return Listing(
        str(path), arrays.class_names, labels, split, lambda position: f"image {position}", read,
        remarks=arrays.remarks,
    )  # fmt: skip
