"""Iso-C and Iso-CTS: task matrices with a flat singular spectrum."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from mergerisk.merging.per_layer import Scaling, single
from mergerisk.merging.singular import gram, inverse_root, truncated_svd
from mergerisk.merging.states import TensorMerging
from mergerisk.merging.vectors import mean_vector
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence


class Isotropic(TensorMerging):
    """Matrices are merged as :meth:`merge_matrix` says; all other tensors take the mean of τt."""

    scaling: Scaling

    @abstractmethod
    def merge_matrix(self, vectors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Task matrices (m × n) → the merged one, m × n."""

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        if pretrained.ndim != 2 or pretrained.numel() == 0:
            return torch.add(pretrained, mean_vector(pretrained, experts), alpha=single(self.scaling))
        vectors = [expert - pretrained for expert in experts]
        return torch.add(pretrained, self.merge_matrix(vectors), alpha=single(self.scaling))


@hyperparameters
class IsoC(Isotropic):
    """Isotropic merging in the common subspace (Marczak et al. 2025, arXiv 2502.04959, algorithm 1).

    The summed task matrix Σ τt = U S Vᵀ gets a flat spectrum: θ = θ0 + λ · mean(S) · U Vᵀ. U Vᵀ is its orthogonal
    polar factor, for which no SVD is needed; the mean is over all min(m, n) singular values.

    Attributes:
        scaling: λ, or one per layer; 1 by default, as in the authors' code. The published tables tune it.
    """

    scaling: Scaling = 1.0

    def merge_matrix(self, vectors: Sequence[torch.Tensor]) -> torch.Tensor:
        return flattened(torch.stack(list(vectors)).sum(dim=0))


@hyperparameters
class IsoCts(Isotropic):
    """Isotropic merging in common and task-specific subspaces (Marczak et al. 2025, arXiv 2502.04959,
    algorithm 2).

    The c largest singular directions of Σ τt are common. Each task adds the s largest directions of what its τt
    holds outside of the common left ones, τt − Uc Ucᵀ τt. All are packed, made orthogonal by their polar factors
    and given one singular value, the mean of all packed ones.

    Attributes:
        common: share of the min(m, n) directions that are common, 0.8 in the paper; the rest is divided evenly
            between tasks, s = round((min(m, n) − ⌊share⌋) / T), and c is what that leaves.
        scaling: λ, or one per layer; 1 by default, as in the authors' code. The published tables tune it.
    """

    common: Annotated[float, Field(ge=0, le=1)] = 0.8
    scaling: Scaling = 1.0

    def merge_matrix(self, vectors: Sequence[torch.Tensor]) -> torch.Tensor:
        tasks, size = len(vectors), min(vectors[0].shape)
        own = min(round((size - int(self.common * size)) / tasks), size // tasks)
        summed = torch.stack(list(vectors)).sum(dim=0)
        if own == 0:
            return flattened(summed)
        shared = size - tasks * own
        triples = []
        outside = list(vectors)
        if shared > 0:
            triples.append(truncated_svd(summed, shared))
            basis = triples[0][0].to(summed)
            outside = [vector - basis @ (basis.mT @ vector) for vector in vectors]
        triples += [
            truncated_svd(left_over, own, size=float(vector.norm()))
            for left_over, vector in zip(outside, vectors, strict=True)
        ]
        left, values, right = (torch.cat(parts, dim=-1) for parts in zip(*triples, strict=True))
        roots = [inverse_root(gram(packed, torch.float64), summed.dtype)[0] for packed in (left, right)]
        # Directions that a task lacks have the value 0, but count in the mean.
        level = values.sum() / (shared + tasks * own)
        return (level * (left @ (roots[0] @ roots[1])) @ right.mT).to(summed)


def flattened(matrix: torch.Tensor) -> torch.Tensor:
    """An m × n matrix with every singular value replaced by their mean."""
    if matrix.shape[0] < matrix.shape[1]:
        return flattened(matrix.mT).mT
    root, values = inverse_root(gram(matrix, torch.float64), matrix.dtype)
    return (values.mean() * (matrix.double() @ root)).to(matrix)
