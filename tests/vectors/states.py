"""Small states to merge, for the scripts that make vectors with public libraries, and their file format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

State = dict[str, Tensor]

EXPERTS = 4
SHAPES: dict[str, tuple[int, ...]] = {
    "patch.weight": (4, 3, 3, 3),
    "patch.bias": (4,),
    "wide.weight": (12, 20),
    "wide.bias": (12,),
    "tall.weight": (20, 11),
    "tall.bias": (20,),
    "square.weight": (15, 15),
    "scale": (),
}
GRID = 2**24
SEED = 148
"""With it, every matrix that TSV-M and Iso-CTS pack has a smallest singular value of at least 0.03, and where they
cut a spectrum the gap is at least 1 % of the largest singular value."""


def make_states() -> tuple[State, list[State]]:
    """A base and four float32 experts whose task vectors have a common part and one of their own.

    All values are multiples of 2^-24 below 1, so that task vectors and their sums are exact in float32: which
    entries a method selects does not depend on how it rounds. Nor are there equal magnitudes within a task
    vector, or entries of several task vectors that cancel.
    """
    generator = torch.Generator().manual_seed(SEED)

    def draw(scale: float) -> State:
        return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}

    def on_grid(state: State) -> State:
        return {name: (GRID * tensor).round() / GRID for name, tensor in state.items()}

    base, common = on_grid(draw(0.1)), draw(0.03)
    vectors = []
    for _ in range(EXPERTS):
        own = draw(0.04)
        vectors.append(on_grid({name: common[name] + own[name] for name in SHAPES}))
    flat = torch.stack([torch.cat([tensor.flatten() for tensor in vector.values()]) for vector in vectors])
    subsets = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * EXPERTS)[1:]
    if any(len(row.abs().unique()) < len(row) for row in flat) or bool((subsets @ flat == 0).any()):
        raise SystemExit("equal magnitudes, or task vectors that cancel: change the seed")
    return base, [{name: base[name] + vector[name] for name in SHAPES} for vector in vectors]


def cast(state: State, dtype: torch.dtype) -> State:
    """The same values in another dtype."""
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def draw_by_name(patch: pytest.MonkeyPatch, states: Sequence[State]) -> None:
    """Let DARE and DELLA draw their masks by tensors' names, as the scripts here did, and not by what tensors hold."""
    names = {tuple(tensor.float().flatten().tolist()): name for state in states for name, tensor in state.items()}
    patch.setattr(
        "mergerisk.merging.dropped.identity", lambda tensor: names[tuple(tensor.float().flatten().tolist())]
    )


@dataclass(frozen=True)
class Vectors:
    """What a file holds.

    Attributes:
        base: the pretrained state.
        experts: the states to merge.
        merged: what the library made of them, by name.
        parameters: per name, this project's method, its hyper-parameters, and ``experts`` if not all are merged.
        versions: of the library and of torch, by package name.
    """

    base: State
    experts: list[State]
    merged: dict[str, State]
    parameters: dict[str, dict[str, Any]]
    versions: dict[str, str]

    def write(self, file: Path) -> None:
        """Store all states in float32: under each tensor's name a stack of the states' tensors."""
        states = [self.base, *self.experts, *self.merged.values()]
        tensors = {name: torch.stack([state[name].float() for state in states]) for name in SHAPES}
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise SystemExit(f"{file.name}: there are NaN or infinite values")
        lists = {"merged": json.dumps(list(self.merged)), "parameters": json.dumps(self.parameters)}
        save_file(tensors, file, metadata=self.versions | lists)

    @classmethod
    def read(cls, file: Path) -> Vectors:
        """What :meth:`write` stored."""
        with safe_open(file, "pt") as stored:
            versions = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in SHAPES}
        names = json.loads(versions.pop("merged"))
        base, *others = [dict(zip(SHAPES, row, strict=True)) for row in zip(*tensors.values(), strict=True)]
        return cls(
            base=base,
            experts=others[:EXPERTS],
            merged=dict(zip(names, others[EXPERTS:], strict=True)),
            parameters=json.loads(versions.pop("parameters")),
            versions=versions,
        )

    def error(self, one: State, two: State, *skip: str) -> float:
        """The largest difference between two merged states, relative to the largest entry of any task vector
        of the same tensor; without the tensors ``skip``."""
        assert list(one) == list(two) == list(SHAPES)
        errors = []
        for name in SHAPES.keys() - set(skip):
            size = max(float((expert[name] - self.base[name]).abs().max()) for expert in self.experts)
            errors.append(float((one[name].double() - two[name].double()).abs().max()) / size)
        return max(errors)
