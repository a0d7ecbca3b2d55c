"""Arrays as the bytes of a safetensors file, without a copy of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
