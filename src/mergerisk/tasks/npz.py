"""Tasks in ``.npz`` files."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mergerisk.errors import UserError
from mergerisk.tasks.arrays import TaskArrays
from mergerisk.tasks.class_names import one_form
from mergerisk.tasks.numbering import numbered, numbered_remark

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in ("images", "labels", "split") if key not in archive]
            if missing:
                raise UserError(f"{path}: array {missing[0]!r} is missing; needed are images, labels and split")
            labels = archive["labels"]
            if not np.issubdtype(labels.dtype, np.integer) or labels.size == 0 or labels.ndim != 1:
                raise UserError(
                    f"{path}: labels must be integers, one per image, got {labels.dtype}, {labels.shape}"
                )
            if "class_names" not in archive and labels.max() - (labels.min() == 1) >= labels.size:
                raise UserError(
                    f"{path}: label {labels.max()} among {labels.size} images; labels are 0, 1, …, one per class"
                )
            if "class_names" in archive:
                named = tuple(one_form(str(name)) for name in archive["class_names"])
                return TaskArrays(archive["images"], labels, archive["split"], named)
            names, first = numbered(labels.astype(np.int64))
            remarks = numbered_remark(names, first)
            return TaskArrays(archive["images"], labels - first, archive["split"], names, remarks=remarks)
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read as .npz: {error}") from error


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
