"""Files of a run, written whole or not at all."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place at the end.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        what = "the disk is full; free space and run again" if full else f"cannot be written: {error.strerror}"
        raise UserError(f"{path}: {what}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file's content."""
    with _replacing(path) as temporary:
        temporary.write_bytes(content)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet; equal tables give equal bytes."""
    with _replacing(path) as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary, compression="zstd")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV."""
    with _replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
