"""Arrays as the bytes of a safetensors file, without a copy of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_DTYPES = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""What safetensors calls NumPy's dtypes, in the order in which it writes them."""


def safetensors_pieces(arrays: Mapping[str, NDArray[Any]]) -> list[bytes | memoryview]:
    """The parts of a safetensors file, in order: the header, then every array's own memory.

    The library's ``save`` writes the same bytes, but makes two copies of everything, which a large encoder has no
    room for. Large entries come first, so that all are aligned.

    Raises:
        ValueError: an array of a dtype that the format lacks.
    """
    ranks = list(_DTYPES)
    ordered = sorted(arrays.items(), key=lambda item: (ranks.index(item[1].dtype.name), item[0]))
    header: dict[str, Any] = {}
    pieces: list[bytes | memoryview] = []
    end = 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        contiguous = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        pieces.append(contiguous.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *pieces]
