"""TSV-M: task singular vectors, made orthogonal to one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.merging.per_layer import Scaling, single
from mergerisk.merging.singular import gram, inverse_root, truncated_svd
from mergerisk.merging.states import TensorMerging
from mergerisk.merging.vectors import mean_vector
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence


@hyperparameters
class TsvM(TensorMerging):
    """Task singular vectors, merged (Gargiulo et al. 2025, arXiv 2412.00081, algorithm 1).

    A task matrix τt (m × n) keeps its min(m, n) / T largest singular directions (rounded down, at least one).
    Those of all tasks are packed, U = [U1 … UT] and V likewise, and replaced by their orthogonal polar factors,
    so that tasks no longer interfere: Δ = polar(U) · diag(S1 … ST) · polar(V)ᵀ, and θ = θ0 + λ Δ. Tensors that
    are no matrices (biases, convolutions) take the mean of τt.

    Embeddings are matrices too, here as in the authors' code. Directions a task does not use (its matrix has a
    lower rank: LoRA, frozen layers) are left out; the authors' code and FusionBench pack arbitrary null vectors in
    their place.

    Attributes:
        scaling: λ, or one per layer; 1 in the paper.
    """

    scaling: Scaling = 1.0

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        if pretrained.ndim != 2 or pretrained.numel() == 0:
            return torch.add(pretrained, mean_vector(pretrained, experts), alpha=single(self.scaling))
        rank = max(1, min(pretrained.shape) // len(experts))
        triples = [truncated_svd(expert - pretrained, rank) for expert in experts]
        left, values, right = (torch.cat(parts, dim=-1) for parts in zip(*triples, strict=True))
        roots = [inverse_root(gram(packed, torch.float64), pretrained.dtype)[0] for packed in (left, right)]
        # polar(U) S polar(V)ᵀ = U (UᵀU)^(−1/2) S (VᵀV)^(−1/2) Vᵀ: the roots may be large, and stay float64.
        middle = (roots[0] * values) @ roots[1]
        return torch.addmm(
            pretrained, (left @ middle).to(pretrained), right.mT.to(pretrained), alpha=single(self.scaling)
        )
