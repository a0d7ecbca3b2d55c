"""TIES: trim, elect signs, merge what agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field

from mergerisk.merging.method import StateMerging
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.models.encoder import State


@hyperparameters
class Ties(StateMerging):
    """TIES-merging (Yadav et al. 2023, arXiv 2306.01708, algorithm 1).

    Each task vector keeps its largest entries by magnitude; each entry elects the sign of the sum of what was
    kept (a zero sum takes the sign that most entries elected); the entries that agree with it are combined.

    Attributes:
        variant: ``mean`` divides by the number of agreeing entries (the paper's disjoint mean); ``sum`` does
            not (the code of AdaMerging and FusionBench).
        trim: ``global`` ranks all entries of a task together (the paper); ``per_tensor`` ranks each tensor
            alone (mergekit).
        density: share of entries kept, in (0, 1]. Entries that tie with the last one kept are kept too.
        scaling: λ on the combined task vector; None for the variant's usual value: 1 for ``mean``, 0.3 for
            ``sum``.
    """

    variant: Literal["mean", "sum"] = "mean"
    trim: Literal["global", "per_tensor"] = "global"
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    scaling: float | None = None

    def merge_states(self, base: State, experts: Sequence[State]) -> State:
        names = [name for name, tensor in base.items() if tensor.is_floating_point()]
        scaling = {"mean": 1.0, "sum": 0.3}[self.variant] if self.scaling is None else self.scaling
        trimmed = [self._trim({name: expert[name] - base[name] for name in names}) for expert in experts]
        majority = _majority_sign(trimmed)
        merged: State = {}
        for name, pretrained in base.items():
            if name not in trimmed[0]:
                merged[name] = pretrained.clone()
                continue
            vectors = torch.stack([vector[name] for vector in trimmed])
            elected = vectors.sum(dim=0).sign()
            elected = torch.where(elected == 0, majority, elected)
            agreeing = torch.where(vectors.sign() == elected, vectors, 0.0)
            combined = agreeing.sum(dim=0)
            if self.variant == "mean":
                combined = combined / (agreeing != 0).sum(dim=0).clamp(min=1)
            merged[name] = pretrained + scaling * combined
        return merged

    def _trim(self, vector: State) -> State:
        if self.trim == "per_tensor":
            return {name: _keep_largest(tensor, self._threshold(tensor)) for name, tensor in vector.items()}
        threshold = self._threshold(torch.cat([tensor.flatten() for tensor in vector.values()]))
        return {name: _keep_largest(tensor, threshold) for name, tensor in vector.items()}

    def _threshold(self, entries: torch.Tensor) -> torch.Tensor:
        """The magnitude of the smallest entry kept."""
        kept = max(1, round(self.density * entries.numel()))
        return entries.abs().flatten().kthvalue(entries.numel() - kept + 1).values


def _keep_largest(tensor: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    return torch.where(tensor.abs() >= threshold, tensor, 0.0)


def _majority_sign(trimmed: Sequence[State]) -> float:
    """The sign that most entries elect, over the whole model; + if they balance."""
    balance = sum(
        int(torch.stack([vector[name] for vector in trimmed]).sum(dim=0).sign().sum()) for name in trimmed[0]
    )
    return 1.0 if balance >= 0 else -1.0
