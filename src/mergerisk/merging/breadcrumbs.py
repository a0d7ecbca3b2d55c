"""Model Breadcrumbs: task vectors without their outliers and their many small entries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field

from mergerisk.merging.per_layer import Scaling, single
from mergerisk.merging.states import TensorMerging
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence


@hyperparameters
class Breadcrumbs(TensorMerging):
    """Model Breadcrumbs (Davari and Belilovsky 2024, arXiv 2312.06795, section 3).

    θ = θ0 + scaling · Σ mask(τt) with task vectors τt = θt − θ0. Of every row of n entries, the mask drops the
    floor(``drop_top`` · n) largest by magnitude and keeps the max(1, round(``density`` · n)) largest of the rest,
    or all of the rest if it has no more: so no row, however short, is zeroed as a whole.

    The authors' code cuts rows along the last dimension, rounds both numbers down and leaves scalars as they are.
    mergekit ranks a whole tensor; if both shares exceed 1 together, it drops fewer outliers.

    Attributes:
        density: share of a row that is kept, in (0, 1]; the paper's β.
        drop_top: share of a row's largest entries that are dropped, in [0, 1); the paper's γ.
        granularity: ``row`` ranks each row of a tensor alone (first dimension × all the others; a tensor of fewer
            than two dimensions is one row); ``tensor`` takes the whole tensor as one row.
        scaling: the paper's α, or one per layer. The defaults 0.2, 0.1 and 0.4 are those of the authors' usage
            example; their own search goes over densities of 0.05 to 0.2 and top shares of 0.001 to 0.01.
    """

    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    drop_top: Annotated[float, Field(ge=0, lt=1)] = 0.1
    granularity: Literal["row", "tensor"] = "row"
    scaling: Scaling = 0.4

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        merged = pretrained.clone()
        for expert in experts:
            merged.add_(self._masked(expert - pretrained), alpha=single(self.scaling))
        return merged

    def _masked(self, vector: torch.Tensor) -> torch.Tensor:
        by_row = self.granularity == "row" and vector.ndim >= 2
        rows = vector.flatten(1) if by_row else vector.reshape(1, -1)
        size = rows.shape[1]
        dropped = math.floor(self.drop_top * size)
        kept = min(max(1, round(self.density * size)), size - dropped)
        places = rows.abs().topk(dropped + kept, dim=1).indices[:, dropped:]
        return torch.zeros_like(rows).scatter_(1, places, rows.gather(1, places)).reshape(vector.shape)
