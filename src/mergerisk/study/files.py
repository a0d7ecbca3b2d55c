"""Files of a run, written whole or not at all."""

from __future__ import annotations

import errno
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    import pandas as pd


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside ``path``, open for writing, that takes its place at the end; removed if anything fails.

    Its name cannot be foreseen and must not exist: what else lies in the folder, a symbolic link under a guessed
    name for one, is neither followed nor overwritten.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        what = "the disk is full; free space and run again" if full else f"cannot be written: {error.strerror}"
        raise UserError(f"{path}: {what}") from error
    finally:
        temporary.unlink(missing_ok=True)  # gone already, where it took its place


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file's content."""
    with _replacing(path) as file:
        file.write(content)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet; equal tables give equal bytes."""
    with _replacing(path) as file:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file, compression="zstd")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV."""
    with _replacing(path) as file:
        table.to_csv(file, index=False, lineterminator="\n")
