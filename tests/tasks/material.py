"""Small data sets in real formats."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("apple", "bear", "cloud")


def pixels(number: int, height: int = 8, width: int = 8) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(number: int, height: int = 8, width: int = 8, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number, height, width)).save(buffer, kind)
    return buffer.getvalue()


def write_folder(root: Path, counts: dict[str, int], names: tuple[str, ...] = NAMES, first: int = 0) -> Path:
    """Class folders within the folders of splits (``""`` for none); every picture another."""
    number = first
    for split, count in counts.items():
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index:03d}.png").write_bytes(encoded(number))
                number += 1
    return root


def table(
    labels: list[Any],
    images: list[bytes | None] | None = None,
    *,
    names: tuple[str, ...] | None = NAMES,
    struct: bool = True,
    columns: tuple[str, str] = ("image", "label"),
    first: int = 0,
) -> pa.Table:
    """A table as the ``datasets`` library writes it."""
    content = [encoded(first + i) for i in range(len(labels))] if images is None else images
    column: pa.Array = (
        pa.array([{"bytes": c, "path": f"{i}.png"} if c else None for i, c in enumerate(content)])
        if struct
        else pa.array(content, pa.binary())
    )
    made = pa.table({columns[0]: column, columns[1]: pa.array(labels)})
    if names is None:
        return made
    features = {columns[0]: {"_type": "Image"}, columns[1]: {"_type": "ClassLabel", "names": list(names)}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(path: Path, made: pa.Table, rows: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path, row_group_size=rows)
    return path


def to_bytes(made: pa.Table, rows: int = 5) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(made, buffer, row_group_size=rows)
    return buffer.getvalue()
