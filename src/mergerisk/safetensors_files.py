"""What begins a safetensors file: which tensors it holds, and where (https://huggingface.co/docs/safetensors).

The library reads and writes whole files. What is written tensor by tensor, or without a copy, or read by somebody
who must not map it into memory, needs no more than this.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mergerisk.disk import refuse_special
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BYTES = {
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "F32": 4,
    "U32": 4,
    "I32": 4,
    "BF16": 2,
    "F16": 2,
    "U16": 2,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Of an entry of each dtype that is written here, in the order in which the library writes them."""

_RANKS = {dtype: rank for rank, dtype in enumerate(BYTES)}

_MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library itself."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a file.

    Attributes:
        dtype: in the format's words, ``F32`` say; in a file of others it may be any text.
        shape: its sides, none negative.
        start: byte of the file at which its values begin.
        end: byte behind them.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def layout(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, Entry]]:
    """The header of a file, with its length before it, and where each tensor belongs, in the order of the file.

    Large entries come first, then equal dtypes by name, as the library does it: every tensor is aligned.

    Args:
        tensors: name → dtype (of :data:`BYTES`) and shape.
        metadata: texts by name.

    Raises:
        KeyError: a dtype that the format lacks.
    """
    ordered = sorted(tensors.items(), key=lambda item: (_RANKS[item[1][0]], item[0]))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end, places = 0, {}
    for name, (dtype, shape) in ordered:
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        places[name] = (start, end)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    beginning = len(text).to_bytes(8, "little") + text
    first = len(beginning)
    return beginning, {
        name: Entry(*tensors[name], first + start, first + end) for name, (start, end) in places.items()
    }


def read_header(file: Path) -> tuple[dict[str, Entry], dict[str, Any]]:
    """The tensors of a file, in the order of their values, and the file's metadata.

    Nothing in it is trusted: the tensors must tile the file exactly. Their dtypes are only text here.

    Raises:
        UserError: it cannot be read, is cut short, or its header does not describe it.
    """
    try:
        refuse_special(file)
        size = file.stat().st_size
        with file.open("rb") as opened:
            first = opened.read(8)
            length = int.from_bytes(first, "little")
            if len(first) < 8 or length > min(size - 8, _MAX_HEADER):
                unsound(file, "cut short, or its header's length is wrong")
            text = opened.read(length)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        unsound(file, "its header is not JSON")
    if not isinstance(header, dict):
        unsound(file, "its header is not a JSON object")
    metadata = header.pop("__metadata__", None)

    found: dict[str, Entry] = {}
    for name, entry in header.items():
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [start, end]} if all(
                type(number) is int and number >= 0 for number in (*shape, start, end)
            ):
                found[name] = Entry(dtype, tuple(shape), 8 + length + start, 8 + length + end)
            case _:
                unsound(file, f"its header's entry for {name!r} is malformed")
    found = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].end)))
    ends = [8 + length, *(entry.end for entry in found.values())]
    if [*(entry.start for entry in found.values()), size] != ends:
        unsound(file, "cut short, or its tensors overlap or leave gaps")
    return found, metadata if isinstance(metadata, dict) else {}


def unsound(file: Path, what: str) -> NoReturn:
    """Raises:
    UserError: says what is wrong with a file.
    """
    raise UserError(f"{file}: not a sound safetensors file: {what}")
