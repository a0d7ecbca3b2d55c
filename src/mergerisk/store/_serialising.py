"""Arrays as the bytes of a file: of safetensors, without a copy of them, or compressed, of Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mergerisk.safetensors_files import layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_KINDS = {"u": "U", "i": "I", "f": "F"}
"""What safetensors' names of dtypes begin with, by NumPy's kinds; a number of bits follows."""


def safetensors_pieces(arrays: Mapping[str, NDArray[Any]]) -> list[bytes | memoryview]:
    """The parts of a safetensors file, in order: the header, then every array's own memory.

    The library's ``save`` writes the same bytes, but makes two copies of everything, which a large encoder has no
    room for.

    Raises:
        KeyError: an array of a dtype that the format lacks.
    """
    beginning, places = layout({name: (_name(array.dtype), array.shape) for name, array in arrays.items()})
    return [beginning, *(_content(arrays[name]) for name in places)]


def _name(dtype: np.dtype[Any]) -> str:
    return "BOOL" if dtype == np.bool_ else f"{_KINDS[dtype.kind]}{8 * dtype.itemsize}"


def _content(array: NDArray[Any]) -> memoryview:
    contiguous = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return contiguous.reshape(-1).view(np.uint8).data


def to_parquet(array: NDArray[Any]) -> bytes:
    """An array of few distinct values as the bytes of a Parquet file (a dictionary, then zstd), without its
    shape."""
    sink = pa.BufferOutputStream()
    table = pa.table({"value": np.ascontiguousarray(array).reshape(-1)})
    # Numbers of changes too: packed into bits they are smaller after zstd's third level than bytes after its
    # ninth, at a fifth of the time.
    pq.write_table(table, sink, compression="zstd", use_dictionary=True)
    return bytes(sink.getvalue())


def from_parquet(content: bytes) -> NDArray[Any]:
    """The array in such bytes, flat."""
    # One thread: payloads are small, and workers share the cores.
    column = pq.read_table(pa.BufferReader(content), use_threads=False).column("value")
    # Copied, since Arrow's own memory is read-only and PyTorch shares what it is given.
    return np.array(column.to_numpy())
