"""Files of a run, written whole or not at all; see :func:`mergerisk.disk.replacing`, whose errors they raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mergerisk.disk import replacing

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file's content."""
    with replacing(path) as file:
        file.write(content)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet; equal tables give equal bytes."""
    with replacing(path) as file:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file, compression="zstd")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV."""
    with replacing(path) as file:
        table.to_csv(file, index=False, lineterminator="\n")
