"""The checkpoints of a recipe: each with its own names, and the parts of it that are merged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mergerisk.models.core.checks import check_finite
from mergerisk.models.on_disk.checkpoints import Alignment, StoredTensors, TensorSpec
from mergerisk.models.on_disk.copies import split_copy
from mergerisk.models.sources.hub import commit_of, remark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import torch


@dataclass(frozen=True)
class Ingredient:
    """One checkpoint of a recipe.

    Attributes:
        spec: what the recipe calls it.
        path: where it is.
        tensors: what it holds.
        files: its own files.
        alignment: from the base's names to its own.
        left_out: its floating tensors that the base does not have.
        remarks: what a reader of the model card has to know of its configuration and preprocessing.
        prefix: what the names of the copy that is meant begin with in the file; see :func:`split_copy`.
    """

    spec: str
    path: Path
    tensors: StoredTensors
    files: tuple[Path, ...]
    alignment: Alignment = field(default_factory=Alignment)
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def name(self) -> str:
        """The hub's name, or the folder's own: where it was on somebody's disk is nobody's business."""
        return split_copy(self.spec)[0].partition("@")[0] if self.commit else self.path.name

    @property
    def commit(self) -> str | None:
        """The hub's commit, if it came from there."""
        return commit_of(self.path)

    @property
    def origin(self) -> str:
        """What a reader must know of where it came from; empty if nothing."""
        return remark(split_copy(self.spec)[0], self.path)


@dataclass(frozen=True)
class Ingredients:
    """All of a recipe's checkpoints.

    Attributes:
        base: the pretrained one.
        experts: the others, by name.
        merged: the base's names of the tensors that are merged.
        kept: modules of the base that no expert has, so that they are taken from it as they are.
    """

    base: Ingredient
    experts: Mapping[str, Ingredient]
    merged: tuple[str, ...]
    kept: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[tuple[str, Ingredient], ...]:
        """All of them; an expert, too, may be called base."""
        return (("base", self.base), *self.experts.items())

    @property
    def copied(self) -> tuple[str, ...]:
        """The base's names of the tensors that are taken from it as they are."""
        others = {*self.merged, *self.base.tensors.aliases}
        return tuple(name for name in self.base.tensors if name not in others)

    @property
    def bytes_to_read(self) -> int:
        """Of all experts' tensors that are merged."""
        return sum(
            expert.tensors.specs[expert.alignment(name)].nbytes
            for expert in self.experts.values()
            for name in self.merged
        )


class Part(StoredTensors):
    """Some tensors of an ingredient under the base's names, looked over as they are read.

    Args:
        tensors: the ingredient's.
        names: the base's names → the ingredient's.
        dtype: that floating tensors come in; None for their own.
        read: told the size of every tensor that is read for the first time.
    """

    def __init__(
        self,
        tensors: StoredTensors,
        names: Mapping[str, str],
        dtype: torch.dtype | None = None,
        read: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._tensors = tensors
        self._names = names
        self._read = read
        self._seen: dict[str, int] = {}
        self._specs = {name: _spec_in(tensors.specs[own], dtype) for name, own in names.items()}

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        return self._specs

    def file(self, name: str) -> Path:
        return self._tensors.file(self._names[name])

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._looked_over(name, self._tensors[self._names[name]], 0)

    def pieces(self, name: str, size: int) -> Iterator[torch.Tensor]:
        start = 0
        for piece in self._tensors.pieces(self._names[name], size):
            yield self._looked_over(name, piece, start)
            start += len(piece)

    def _looked_over(self, name: str, entries: torch.Tensor, start: int) -> torch.Tensor:
        """Entries from ``start`` on, in the dtype they are wanted in, checked when they are read first.

        Raises:
            UserError: NaN or infinity is among them.
        """
        if start >= self._seen.get(name, 0):
            check_finite({self._names[name]: entries}, str(self.file(name)))
            self._read(entries.nbytes)
            self._seen[name] = start + max(entries.numel(), 1)
        return entries.to(self._specs[name].dtype)


def _spec_in(spec: TensorSpec, dtype: torch.dtype | None) -> TensorSpec:
    return TensorSpec(dtype, spec.shape) if dtype is not None and spec.dtype.is_floating_point else spec
