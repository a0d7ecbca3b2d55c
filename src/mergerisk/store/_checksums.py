"""Files held against their checksums."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Pieces = Sequence[bytes | memoryview]
"""A file's content, one part after another."""


def regular_file(path: Path, about: Mapping[str, Any]) -> Path:
    """The path, of a file that has as many bytes as were written: what is none, a pipe say, may never end.

    Raises:
        OSError: it cannot be looked at.
        ValueError: it is something else.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != about["bytes"]:
        raise ValueError(path.name)
    return path


def compare(path: Path, about: Mapping[str, Any]) -> None:
    """Hold a file against its checksum, without holding it in memory.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else.
    """
    with regular_file(path, about).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != about["sha256"]:
            raise ValueError(path.name)


def digest(pieces: Pieces) -> str:
    """The SHA-256 of a file's content, given in parts."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()
