"""Tasks in ``.npz`` files."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.errors import UserError
from mergerisk.tasks.arrays import TaskArrays

if TYPE_CHECKING:
    from pathlib import Path


def read_npz(path: Path) -> TaskArrays:
    """Arrays ``images``, ``labels``, ``split`` and, if present, ``class_names`` from an ``.npz`` file.

    Nothing is unpickled.

    Raises:
        UserError: no such file, not an ``.npz``, or an array is missing.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; a task is the name of a starter task or the path of an .npz file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in ("images", "labels", "split") if key not in archive]
            if missing:
                raise UserError(f"{path}: array {missing[0]!r} is missing; needed are images, labels and split")
            labels = archive["labels"]
            if not np.issubdtype(labels.dtype, np.integer) or labels.size == 0:
                raise UserError(f"{path}: labels must be integers, at least one, got {labels.dtype}")
            names = (
                tuple(str(name) for name in archive["class_names"])
                if "class_names" in archive
                else tuple(str(label) for label in range(int(labels.max()) + 1))
            )
            return TaskArrays(archive["images"], labels, archive["split"], names)
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read as .npz: {error}") from error
