"""What a disk holds after the power went at any moment: only what had been flushed is certain.

A file's bytes are certain once the file was flushed; a name in a folder, once the folder was. Between two calls to the
system everything else may be there or not. Two extremes are built of it: all names are there and files that were not
flushed are empty (``names``), or only what was flushed is there (``nothing``).
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CALLS = ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "remove")
"""Calls of :mod:`os` before each of which the power may go."""

Disk = dict[str, bytes | None]
"""Relative path → a file's content, or ``None`` for a folder."""


class PowerLoss:
    """Watches a folder's changes, and says what a disk would hold if the power went between any two of them.

    Attributes:
        after: for every moment, the last of which comes after the work, the disk in both extremes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._folders: set[int] = set()
        self.after: list[dict[str, Disk]] = []
        for folder, _, files in os.walk(root):  # what is there already was flushed long ago
            self._flushed(Path(folder))
            for name in files:
                self._flushed(Path(folder) / name)

    @contextmanager
    def watching(self) -> Iterator[PowerLoss]:
        """Note every moment of what is done in the block."""
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._noted(name, getattr(os, name)))
            yield self
        self._moment()

    def _noted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            self._moment()
            result = call(*arguments, **options)
            if name == "fsync":
                self._flushed(Path(f"/proc/self/fd/{arguments[0]}").readlink())
            return result

        return noted

    def _flushed(self, path: Path) -> None:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            self._folders.add(found.st_ino)
            self._names[found.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self._content[found.st_ino] = path.read_bytes()

    def _moment(self) -> None:
        self._folders |= {Path(folder).stat().st_ino for folder, _, _ in os.walk(self._root)}
        names: Disk = {}
        for path in self._root.rglob("*"):
            name = str(path.relative_to(self._root))
            names[name] = None if path.is_dir() else self._content.get(path.stat().st_ino, b"")
        nothing: Disk = {}
        self._certain(self._root.stat().st_ino, "", nothing)
        self.after.append({"names": names, "nothing": nothing})

    def _certain(self, folder: int, prefix: str, disk: Disk) -> None:
        for name, inode in self._names.get(folder, {}).items():
            if inode in self._folders:
                disk[prefix + name] = None
                self._certain(inode, f"{prefix}{name}/", disk)
            else:
                disk[prefix + name] = self._content.get(inode, b"")


def restored(disk: Disk, place: Path) -> Path:
    """A disk as files and folders below ``place``."""
    place.mkdir()
    for name in sorted(disk):
        content = disk[name]
        if content is None:
            (place / name).mkdir()
        else:
            (place / name).write_bytes(content)
    return place
