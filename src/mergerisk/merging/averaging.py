"""Weight averaging and task arithmetic: linear combinations of parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.merging.method import StateMerging
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.models.encoder import State


@hyperparameters
class WeightAveraging(StateMerging):
    """The mean of the experts' parameters (Wortsman et al. 2022, arXiv 2203.05482; Choshen et al. 2022).

    Attributes:
        coefficients: one weight per expert, in the experts' order; None for 1/T each. They are used as given,
            not rescaled. Their number is checked: a widely copied list has 7 entries of 1/8 for 8 tasks, and
            silently drops the last expert.
    """

    coefficients: tuple[float, ...] | None = None

    def merge_states(self, base: State, experts: Sequence[State]) -> State:
        count = len(experts)
        weights = (1.0 / count,) * count if self.coefficients is None else self.coefficients
        if len(weights) != count:
            raise UserError(f"weight_averaging: {len(weights)} coefficients for {count} experts; give one each")
        merged: State = {}
        for name, pretrained in base.items():
            if not pretrained.is_floating_point():
                merged[name] = pretrained.clone()
                continue
            total = experts[0][name] * weights[0]
            for expert, weight in zip(experts[1:], weights[1:], strict=True):
                total.add_(expert[name], alpha=weight)
            merged[name] = total
        return merged


@hyperparameters
class TaskArithmetic(StateMerging):
    """θ0 + λ Σ τt, with task vectors τt = θt − θ0 (Ilharco et al. 2023, arXiv 2212.04089, section 3).

    Attributes:
        scaling: λ; 0.3 is the paper's value for eight tasks.
    """

    scaling: float = 0.3

    def merge_states(self, base: State, experts: Sequence[State]) -> State:
        merged: State = {}
        for name, pretrained in base.items():
            merged[name] = pretrained.clone()
            if pretrained.is_floating_point():
                for expert in experts:
                    merged[name].add_(expert[name] - pretrained, alpha=self.scaling)
        return merged
