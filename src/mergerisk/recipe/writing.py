"""Files that exist whole or not at all, however large."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mergerisk.disk import flush
from mergerisk.errors import UserError
from mergerisk.models.checkpoints import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from mergerisk.models.checkpoints import TensorSpec

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

WRITTEN = frozenset(
    {
        "model.safetensors",
        "config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "README.md",
        "recipe.yaml",
    }
)
"""What a merge writes into its folder, or into one folder per task."""

_SPARE_BYTES = 2**20
"""For the small files."""


class SafetensorsWriter:
    """A safetensors file whose tensors are written one by one, in any order.

    Args:
        path: the file.
        specs: name → dtype and shape of everything that is going to be written.
        aliases: further names of some → those they are written under, noted as ``save_model`` does.
    """

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], aliases: Mapping[str, str]) -> None:
        self._specs = dict(specs)
        self._starts: dict[str, int] = {}
        header: dict[str, object] = {"__metadata__": {**aliases, "format": "pt"}}
        end = 0
        # Wide dtypes first keeps every tensor aligned.
        for name, spec in sorted(specs.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
            self._starts[name], end = end, end + spec.nbytes
            header[name] = {
                "dtype": _NAMES[spec.dtype],
                "shape": list(spec.shape),
                "data_offsets": [self._starts[name], end],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._data = 8 + len(text)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor, each once.

        Raises:
            ValueError: it is not what was announced, or was written before.
        """
        spec = self._specs.pop(name, None)
        if spec is None or (tensor.dtype, tuple(tensor.shape)) != (spec.dtype, spec.shape):
            raise ValueError(f"tensor {name!r} is not the one that was announced")
        self._file.seek(self._data + self._starts[name])
        self._file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is not None:
                return
            if self._specs:
                raise ValueError(f"tensor {min(self._specs)!r} was announced, but never written")
            self._file.flush()
            os.fsync(self._file.fileno())


def check_output(out: Path, *, force: bool, ingredients: Iterable[Path] = ()) -> None:
    """See that a merge may write its folder.

    Args:
        out: the folder.
        force: whether an earlier merge's may be replaced.
        ingredients: what must not be lost.

    Raises:
        UserError: it holds something else, or an ingredient.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out}: a file; choose another --out")
    inside = list(out.iterdir())
    if not inside:
        return
    for path in ingredients:
        if path.resolve().is_relative_to(out.resolve()):
            raise UserError(f"{out}: holds the ingredient {path}; choose another --out")
    files = [file.relative_to(out) for file in out.rglob("*") if not file.is_dir()]
    foreign = [file for file in files if file.name not in WRITTEN or len(file.parts) > 2]
    if foreign or Path("recipe.yaml") not in files:
        what = f"holds {foreign[0]}, which no merge wrote" if foreign else "not empty, and no merge wrote it"
        raise UserError(f"{out}: {what}, so --force does not replace it; choose another --out")
    if not force:
        raise UserError(f"{out}: not empty; choose another --out, or replace an earlier merge with --force")


@contextmanager
def new_folder(out: Path, needed: int) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block ends, and is gone if it ends with an error.

    Killing the process leaves ``.NAME.unfinished``, which the next merge into ``out`` clears away.

    Args:
        out: absent, or a folder that may be replaced.
        needed: bytes that are going to be written.

    Raises:
        UserError: the place cannot be written to or has too little room, or another process is writing ``out``.
    """
    out = Path(os.path.realpath(out))
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < needed + _SPARE_BYTES:
            raise UserError(f"{out.parent}: {_mib(free)} free, {_mib(needed + _SPARE_BYTES)} needed; {_ROOM}")
        unfinished.mkdir(exist_ok=True)
        with _locked(unfinished):
            try:
                _clear(unfinished)
                yield unfinished
                _flush_folders(unfinished)
                _replace(out, unfinished)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise UserError(
                f"{out.parent}: the disk is full; {_mib(needed + _SPARE_BYTES)} needed; {_ROOM}"
            ) from error
        raise UserError(f"{out}: cannot be written: {error.strerror or error}; choose another --out") from error


_ROOM = "free space or choose another --out"


def write_text(path: Path, text: str) -> None:
    """Write a small file, to the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other merges; freed by the system if the process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another merge is writing there; wait, or choose another --out") from error
        yield
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _replace(out: Path, made: Path) -> None:
    if out.exists() and any(out.iterdir()):
        former = out.with_name(f".{out.name}.replaced")
        shutil.rmtree(former, ignore_errors=True)
        out.rename(former)
        made.rename(out)
        shutil.rmtree(former, ignore_errors=True)
    else:
        made.rename(out)
    flush(out.parent)


def _flush_folders(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            flush(path)
    flush(folder)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
