"""Model Stock: the experts' mean, pulled towards the base by the angle between task vectors."""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from mergerisk.merging.states import TensorMerging
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence

_SINGULAR = 1e-6


@hyperparameters
class ModelStock(TensorMerging):
    """Model Stock (Jang et al. 2024, arXiv 2403.19522, the interpolation ratio for N models).

    Per tensor: θ = r · mean(θt) + (1 − r) · θ0 with r = T·c / (1 + (T − 1)·c), where c is the mean cosine between
    two task vectors τt = θt − θ0, over all pairs; a pair with a zero vector counts 0. One expert: r = 1. Where
    |1 + (T − 1)·c| < 1e-6 no r is finite, and θ = θ0.

    The paper has one angle for all pairs and does not say how to average unequal ones. Cosines are averaged here,
    as in mergekit; FusionBench averages angles. mergekit can also take each row of a matrix as a vector of its
    own.
    """

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        mean = reduce(torch.add, experts) / len(experts)
        return torch.lerp(pretrained, mean, _ratio([expert - pretrained for expert in experts]))


def _ratio(vectors: Sequence[torch.Tensor]) -> float:
    """The share r of the experts' mean."""
    count = len(vectors)
    if count == 1:
        return 1.0
    # In float64: close to the singular point, rounding would decide the ratio.
    flat = [vector.flatten().double() for vector in vectors]
    cosine = fmean(_cosine(first, second) for first, second in combinations(flat, 2))
    denominator = 1 + (count - 1) * cosine
    return count * cosine / denominator if abs(denominator) >= _SINGULAR else 0.0


def _cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    norms = float(first.norm() * second.norm())
    return float(first.dot(second)) / norms if norms else 0.0
