"""What a merge writes: its weights tensor by tensor, and where it may."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import DTYPES
from mergerisk.safetensors_files import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from mergerisk.models.on_disk.checkpoints import TensorSpec

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


class SafetensorsWriter:
    """A safetensors file whose tensors are written one by one, in any order.

    Args:
        path: the file.
        specs: name → dtype and shape of everything that is going to be written.
        aliases: further names of some → those they are written under, noted as ``save_model`` does.
    """

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], aliases: Mapping[str, str]) -> None:
        self._specs = dict(specs)
        beginning, self._places = layout(
            {name: (_NAMES[spec.dtype], spec.shape) for name, spec in specs.items()}, {**aliases, "format": "pt"}
        )
        self._file = path.open("wb")
        self._file.write(beginning)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor, each once.

        Raises:
            ValueError: it is not what was announced, or was written before.
        """
        spec = self._specs.pop(name, None)
        if spec is None or (tensor.dtype, tuple(tensor.shape)) != (spec.dtype, spec.shape):
            raise ValueError(f"tensor {name!r} is not the one that was announced")
        self._file.seek(self._places[name].start)
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
