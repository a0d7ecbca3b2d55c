"""What a task's content is told by: SHA-256 of files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mergerisk.tasks.listing import Chosen


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def file_digests(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of files, in their order, several at a time.

    Raises:
        UserError: one cannot be read.
    """
    from mergerisk.tasks.decoding import in_threads

    return [digest for portion in in_threads(file_digest, paths) for digest in portion]


def chosen_digest(chosen: Chosen, folder: Path) -> str:
    """One SHA-256 of the number of classes and of every chosen file's split, label, name, size and SHA-256.

    Args:
        chosen: images that are files, each called by its path within the folder.
        folder: where they lie.

    Raises:
        UserError: a file cannot be read.
    """
    from mergerisk.tasks.decoding import in_threads

    def line(item: tuple[int, int, str]) -> str:
        path = folder / item[2]
        digest = file_digest(path)
        return json.dumps([*item, path.stat().st_size, digest])

    names = [chosen.listing.name(position) for position in chosen.positions.tolist()]
    digest = hashlib.sha256(json.dumps(len(chosen.class_names)).encode())
    for portion in in_threads(line, zip(chosen.split.tolist(), chosen.labels.tolist(), names, strict=True)):
        for text in portion:
            digest.update(f"{text}\n".encode())
    return digest.hexdigest()
