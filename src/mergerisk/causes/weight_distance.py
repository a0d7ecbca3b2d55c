"""How far a merge went from its ingredient, and whether it went the same way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.causes.given import Need
from mergerisk.causes.result import Column, Measured, stated
from mergerisk.causes.weights import ALL, WeightCause
from mergerisk.merging.vectors import together
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.causes.weights import Weights
    from mergerisk.merging.material import Tensors


@hyperparameters
class WeightDistance(WeightCause):
    """‖θm − θt‖ / ‖τt‖, cos(θm − θ0, τt), the share of weights that both move of which they move in opposite
    directions; and max‖τ‖ / min‖τ‖ over the experts merged, where these are given (DisTaC 2025, arXiv 2508.01148,
    on what sizes of task vectors do to merges).

    The distance lies in [0, ∞): 0 for the ingredient itself, 1 for the base. Cosine in [−1, 1], conflicts in
    [0, 1], spread in [1, ∞). Over all floating-point weights, integers and running statistics left out. Missing
    where ingredient or merge equals the base.
    """

    name: ClassVar[str] = "weight_distance"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "base"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "weight_distance", "length of the task vector", 0.0, None, "attacks on the ingredient transfer less"
        ),
        Column("weight_cosine", "cosine", -1.0, 1.0, "attacks on the ingredient transfer more"),
        Column("sign_conflicts", "share of weights", 0.0, 1.0, "attacks on the ingredient transfer less"),
        Column("norm_spread", "ratio", 1.0, None, "the largest task dominates; the others' attacks transfer less"),
    )

    def compare(self, weights: Weights) -> Measured:
        assert weights.surrogate is not None
        states = (weights.base, weights.surrogate, weights.target)
        apart = along = own = merged = 0.0
        conflicts = both = 0
        for name in weights.names:
            for pieces in together(states, name):
                base, ingredient, merge = (piece.double() for piece in pieces)
                tau, delta = ingredient - base, merge - base
                apart += float((merge - ingredient).square().sum())
                along += float(tau @ delta)
                own += float(tau @ tau)
                merged += float(delta @ delta)
                signs = tau.sign() * delta.sign()
                conflicts += int((signs < 0).sum())
                both += int((signs != 0).sum())
        lengths = [_length(weights, expert) for expert in weights.experts.values()]
        same, unmoved = "the ingredient equals the base", "the merge equals the base"
        no_ingredient, no_merge = {same: [own == 0]}, {unmoved: [merged == 0]}
        columns = {
            "weight_distance": stated([_ratio(apart**0.5, own**0.5)], no_ingredient),
            "weight_cosine": stated(
                [max(-1.0, min(1.0, _ratio(along, (own * merged) ** 0.5)))], no_ingredient | no_merge
            ),
            "sign_conflicts": stated(
                [_ratio(conflicts, both)], no_ingredient | no_merge | {"no weight is moved by both": [both == 0]}
            ),
            "norm_spread": stated(
                [_ratio(max(lengths, default=0.0), min(lengths, default=0.0))],
                {"no experts are given": [not lengths], "an expert equals the base": [0.0 in lengths]},
            ),
        }
        return Measured(self.name, "pair", (ALL,), columns)


def _length(weights: Weights, state: Tensors) -> float:
    """‖τ‖."""
    total = 0.0
    for name in weights.names:
        for base, expert in together((weights.base, state), name):
            total += float((expert.double() - base.double()).square().sum())
    return math.sqrt(total)


def _ratio(above: float, below: float) -> float:
    return above / below if below else torch.nan
