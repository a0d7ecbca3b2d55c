"""One large array in a file: written a portion at a time, read by rows, never whole in memory."""

from __future__ import annotations

import hashlib
import os
import weakref
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Written:
    """What :func:`write_rows` wrote.

    Attributes:
        shape: of all portions together.
        dtype: their common one, by NumPy's name.
        bytes: of the file.
        sha256: of the file, in hexadecimal.
    """

    shape: tuple[int, ...]
    dtype: str
    bytes: int
    sha256: str


def write_rows(file: BinaryIO, portions: Iterable[NDArray[Any]]) -> Written:
    """Write portions of an array one after another, in C order and without a header, hashing them on the way.

    Raises:
        ValueError: there are none, or they differ in dtype or in the shape of a row.
        OSError: writing fails; what reading the portions raises passes through.
    """
    digest = hashlib.sha256()
    rows = size = 0
    kind: tuple[np.dtype[Any], tuple[int, ...]] | None = None
    for portion in portions:
        if kind is None:
            kind = (portion.dtype, portion.shape[1:])
        if (portion.dtype, portion.shape[1:]) != kind:
            raise ValueError(
                f"portions of one array must agree: {portion.dtype}, {portion.shape[1:]} after {kind}"
            )
        content = np.ascontiguousarray(portion).reshape(-1).view(np.uint8).data
        digest.update(content)
        file.write(content)
        rows, size = rows + len(portion), size + len(content)
    if kind is None:
        raise ValueError("an array needs at least one portion")
    return Written((rows, *kind[1]), kind[0].name, size, digest.hexdigest())


class RowFile:
    """The rows of an array in a file, read when they are asked for.

    Reads are explicit, not mapped, so that the pages read count as the system's cache, not as this process's
    memory. Safe to share between threads.

    Args:
        descriptor: of the open file; closed with this object.
        shape: of the array.
        dtype: of the array.
        ended: makes what is raised where the file is shorter than it was.
    """

    def __init__(
        self, descriptor: int, shape: tuple[int, ...], dtype: str, ended: Callable[[], Exception] | None = None
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._descriptor = descriptor
        self._ended = ended or _ended_early
        self._row_bytes = self.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(
        cls, path: Path, shape: tuple[int, ...], dtype: str, ended: Callable[[], Exception] | None = None
    ) -> RowFile:
        """The rows of the array in ``path``; for ``ended`` see :class:`RowFile`.

        Raises:
            OSError: the file cannot be opened.
        """
        return cls(os.open(path, os.O_RDONLY), shape, dtype, ended)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """One row, or several in the order given; negative positions count from the end.

        Raises:
            IndexError: a row that is not there.
            OSError: the file is shorter than it was, unless ``ended`` says otherwise.
        """
        positions = np.arange(len(self))[index]
        wanted = np.atleast_1d(positions)
        rows = np.empty((len(wanted), *self.shape[1:]), dtype=self.dtype)
        if rows.nbytes:
            content = rows.reshape(-1).view(np.uint8).data
            # Rows that follow each other in the file are read at once.
            starts = [0, *(np.flatnonzero(np.diff(wanted) != 1) + 1).tolist(), len(wanted)]
            for start, stop in pairwise(starts):
                part = content[start * self._row_bytes : stop * self._row_bytes]
                self._read(part, int(wanted[start]) * self._row_bytes)
        return rows if positions.ndim else rows[0]

    def _read(self, content: memoryview, offset: int) -> None:
        while content:
            count = os.preadv(self._descriptor, [content], offset)
            if count == 0:
                raise self._ended()
            content, offset = content[count:], offset + count


def _ended_early() -> OSError:
    return OSError("a file of rows ended early; it was changed while it was read")
