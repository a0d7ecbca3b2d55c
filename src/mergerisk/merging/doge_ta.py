"""DOGE-TA: task arithmetic with one change to all task vectors, found by projected gradient descent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from mergerisk.merging.descending import descend
from mergerisk.merging.per_layer import Scaling, single
from mergerisk.merging.singular import truncated_svd
from mergerisk.merging.states import StateMerging
from mergerisk.merging.vectors import magnitude_threshold, mean_vector
from mergerisk.models.on_disk.checkpoints import tensor_specs
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors

_ALONE = 1 + 1e-4
"""Singular values of packed directions up to which a direction is one task's own: 1, and what rounding may add."""


@hyperparameters
class DogeTa(StateMerging):
    """Adaptive projective gradient descent on task arithmetic (Wei et al. 2025, arXiv 2501.01230), as
    the authors' code in FusionBench (``doge_ta``) has it. Data-free, of matrices τt (m × n) alone.

    1. λt = η / ‖τt‖ (Frobenius), matrix by matrix.
    2. Shared are the ⌊min(m, n) / ``subspace``⌋ largest left singular directions B of [U1 … UT], where Ut holds
       the ⌊min(m, n) / T⌋ largest left singular directions of τt.
    3. A change Δ of all task vectors minimises Σ (τt[r] · (Σs λs (τs + Δ) − τt)[r])² over tasks t and rows r: by
       Adam from 0, whose gradient first loses what of it lies within B, (I − BBᵀ) ∂/∂Δ, so that what tasks share
       stays. Adam scales every entry, which turns a step a little back into B, here as there.
    4. θ = θ0 + Σ λt · maskt ∘ (τt + Δ), with the largest entries of τt in maskt, ranked over all matrices
       together.

    ‖λt τt‖ is η in every matrix, whatever an expert has learnt, and so is about the distance of the merge from the
    base: 0.07 fits CLIP's experts, and larger task vectors want a larger η.

    A direction counts as shared if its singular value is above 1, as those of several tasks' are. In the authors'
    code equal ones count as well, and which of them is up to the SVD: of a single expert, all are. Theirs divides
    by zero where τt = 0; here that expert takes no part. PEFT's ``projective_merge`` sums over rows before it
    squares.

    Attributes:
        scaling: η, or one per layer; 0.07, the authors' for ViT-B/32.
        density: share of entries in maskt, in (0, 1]; 0.3 in the authors' code. Entries that tie with the last one
            are in it.
        subspace: what min(m, n) is divided by for the number of shared directions; 6 in the authors' code.
        steps: of Adam, betas (0.9, 0.999).
        learning_rate: of Adam: about how far an entry of Δ moves at a step.
        others: what becomes of tensors that are no matrices: ``base`` leaves them as they are (the authors' code,
            which leaves embeddings, too), ``mean`` adds the mean of τt.
    """

    scaling: Scaling = 0.07
    density: Annotated[float, Field(gt=0, le=1)] = 0.3
    subspace: PositiveInt = 6
    steps: PositiveInt = 400
    learning_rate: PositiveFloat = 1e-4
    others: Literal["base", "mean"] = "base"

    def combine(
        self,
        base: Tensors,
        experts: Sequence[Tensors],
        *,
        seed: int = 0,  # noqa: ARG002  # nothing is random
    ) -> Iterator[tuple[str, torch.Tensor]]:
        shapes = {name: spec.shape for name, spec in tensor_specs(base).items()}
        matrices = [name for name, shape in shapes.items() if len(shape) == 2 and math.prod(shape) > 0]
        thresholds = [magnitude_threshold(base, expert, matrices, self.density) for expert in experts]
        for name, pretrained in base.items():
            if len(shapes[name]) == 2 and math.prod(shapes[name]) > 0:
                vectors = torch.stack([expert[name] - pretrained for expert in experts])
                yield name, pretrained + self.at(name)._merged(vectors, thresholds)
            elif self.others == "base":
                yield name, pretrained.clone()
            else:
                yield name, pretrained + mean_vector(pretrained, [expert[name] for expert in experts])

    def _merged(self, vectors: torch.Tensor, thresholds: Sequence[float]) -> torch.Tensor:
        """What is added to a matrix.

        Args:
            vectors: τt, T × m × n.
            thresholds: per expert, the smallest magnitude in its mask.
        """
        norms = torch.linalg.vector_norm(vectors, dim=(1, 2))
        weights = torch.where(norms > 0, single(self.scaling) / norms, 0.0)
        change = self._change(vectors, weights)
        merged = torch.zeros_like(change)
        for vector, weight, threshold in zip(vectors, weights.tolist(), thresholds, strict=True):
            merged.add_((vector + change).masked_fill_(vector.abs() < threshold, 0.0), alpha=weight)
        return merged

    def _change(self, vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Δ, m × n."""
        shared = self._shared(vectors)
        total = float(weights.sum())
        start = torch.einsum("t,tmn->mn", weights, vectors)
        # Row by row, how far the merge is from each task along that task's own row, where Δ = 0.
        gaps = torch.einsum("tmn,tmn->tm", vectors, start - vectors)

        def gradient(change: torch.Tensor) -> torch.Tensor:
            moved = torch.einsum("tmn,mn->tm", vectors, change).mul_(total).add_(gaps)
            slope = torch.einsum("tm,tmn->mn", moved, vectors).mul_(2 * total)
            return slope.sub_(shared @ (shared.mT @ slope))

        return descend(torch.zeros_like(start), gradient, steps=self.steps, learning_rate=self.learning_rate)

    def _shared(self, vectors: torch.Tensor) -> torch.Tensor:
        """B, m × directions."""
        size = min(vectors.shape[1:])
        own, most = size // len(vectors), size // self.subspace
        tasks = [vector for vector in vectors if bool(vector.any())]
        if own == 0 or most == 0 or not tasks:
            return vectors.new_zeros(vectors.shape[1], 0)
        packed = torch.cat([truncated_svd(vector, own)[0] for vector in tasks], dim=1)
        directions, values, _ = truncated_svd(packed, min(most, *packed.shape))
        return directions[:, values > _ALONE].to(vectors)
