"""Weight averaging and task arithmetic: linear combinations of parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from mergerisk.merging.states import TensorMerging, one_each
from mergerisk.merging.vectors import new_memory
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence


@hyperparameters
class WeightAveraging(TensorMerging):
    """The mean of the experts' parameters (Wortsman et al. 2022, arXiv 2203.05482; Choshen et al. 2022).

    Attributes:
        coefficients: one weight per expert, in the experts' order; None for 1/T each. They are used as given,
            not rescaled. Their number is checked: a widely copied list has 7 entries of 1/8 for 8 tasks, and
            silently drops the last expert.
    """

    coefficients: tuple[float, ...] | None = None

    def check_count(self, count: int) -> None:
        if self.coefficients is not None:
            one_each(self.coefficients, count, "weight_averaging: coefficients")

    def mixing(self, count: int) -> tuple[float, ...] | None:
        if self.coefficients is None:
            return (1.0 / count,) * count
        # Weights of another sum scale the base as well.
        return self.coefficients if math.isclose(sum(self.coefficients), 1.0) else None

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        weights = (1.0 / len(experts),) * len(experts) if self.coefficients is None else self.coefficients
        total = torch.mul(experts[0], weights[0], out=new_memory(pretrained))
        for expert, weight in zip(experts[1:], weights[1:], strict=True):
            total.add_(expert, alpha=weight)
        return total


_Lambda = float | tuple[float, ...]
_WHAT = "task_arithmetic: scaling"


@hyperparameters
class TaskArithmetic(TensorMerging):
    """θ0 + λ Σ τt, with task vectors τt = θt − θ0 (Ilharco et al. 2023, arXiv 2212.04089, section 3).

    Attributes:
        scaling: λ, or one λ per expert, in the experts' order; 0.3 is the paper's value for eight tasks. Or a
            mapping of layers to either; see :mod:`mergerisk.merging.per_layer`.
    """

    scaling: _Lambda | Annotated[dict[str, _Lambda], Field(min_length=1)] = 0.3

    def check_count(self, count: int) -> None:
        for scaling in self.scaling.values() if isinstance(self.scaling, dict) else (self.scaling,):
            one_each(scaling, count, _WHAT)

    def mixing(self, count: int) -> tuple[float, ...] | None:
        return None if isinstance(self.scaling, dict) else tuple(one_each(self.scaling, count, _WHAT))

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        assert not isinstance(self.scaling, dict), "a tensor is merged as at(name) says"
        scalings = one_each(self.scaling, len(experts), _WHAT)
        merged = new_memory(pretrained).copy_(pretrained)
        vector = torch.empty_like(merged)
        for expert, scaling in zip(experts, scalings, strict=True):
            merged.add_(torch.sub(expert, pretrained, out=vector), alpha=scaling)
        return merged
