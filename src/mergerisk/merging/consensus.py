"""Consensus merging: task arithmetic on the entries that matter to several tasks."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat, PositiveInt

from mergerisk.errors import UserError
from mergerisk.merging.per_layer import Scaling, single
from mergerisk.merging.states import TensorMerging, one_each
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence


@hyperparameters
class Consensus(TensorMerging):
    """Consensus merging with TALL masks (Wang et al. 2024, arXiv 2405.07813, "Consensus Merging").

    mask_t = |τt| > λt · |Σs τs − τt| marks the entries that matter to task t, with task vectors τt = θt − θ0;
    θ = θ0 + scaling · keep ∘ Σ τt, where keep holds the entries that at least ``agreement`` masks mark. So weights
    that help one task alone (the paper's selfish weights) or none (catastrophic ones) return to the base.

    FusionBench puts |θ0 − τt| in the place of |0 − τt|: its masks come out nearly full, and the result close to
    task arithmetic's.

    Attributes:
        threshold: λ ≥ 0 of all masks, or one per expert in their order. The paper picks one per task from 0.2,
            0.3, … 0.6 on validation data; 0.4 is the middle.
        agreement: number of masks, from 1 to T, that keep an entry; 2 is the paper's.
        scaling: factor on the sum of task vectors, or one per layer; 0.3 is task arithmetic's (the paper tunes it
            on validation data).
    """

    threshold: NonNegativeFloat | tuple[NonNegativeFloat, ...] = 0.4
    agreement: PositiveInt = 2
    scaling: Scaling = 0.3

    def check_count(self, count: int) -> None:
        if self.agreement > count:
            raise UserError(
                f"consensus: {self.agreement} masks cannot agree among {count} expert(s); lower agreement"
            )
        one_each(self.threshold, count, "consensus: threshold")

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        thresholds = one_each(self.threshold, len(experts), "consensus: threshold")
        vectors = [expert - pretrained for expert in experts]
        total = reduce(torch.add, vectors)
        votes = torch.zeros_like(pretrained, dtype=torch.int32)
        for vector, threshold in zip(vectors, thresholds, strict=True):
            votes += vector.abs() > threshold * (total - vector).abs()
        return pretrained + single(self.scaling) * torch.where(votes >= self.agreement, total, 0.0)
