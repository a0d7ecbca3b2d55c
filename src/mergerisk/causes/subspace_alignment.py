"""How much of an ingredient lies where the merge moved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from mergerisk.causes.given import Need
from mergerisk.causes.result import Column, Measured, stated
from mergerisk.causes.weights import ALL, WeightCause
from mergerisk.merging.singular import truncated_svd
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.causes.weights import Weights

Share = Annotated[float, Field(gt=0, le=1)]


@hyperparameters
class SubspaceAlignment(WeightCause):
    """‖Π_k τt‖_F / ‖τt‖_F of every matrix, where Π_k projects on the k top left singular vectors of θm − θ0, and k
    is the least number of them that hold ``kept`` of its Frobenius norm: √(Σ_{r ≤ k} σ_r² / Σ σ_r²) ≥ kept
    (subspace alignment ratio, Marczak et al. 2025, arXiv 2502.04959, equations 5 and 6). The row ``all`` is the
    mean over matrices.

    In [0, 1]; 1 where the ingredient moves only where the merge does. The code that drew the paper's figures
    counts k from zero, and so takes one vector less. Missing where one of the two leaves the tensor as it was.

    Attributes:
        kept: share of the norm.
    """

    name: ClassVar[str] = "subspace_alignment"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "base"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("subspace_alignment", "share of the norm", 0.0, 1.0, "attacks on the ingredient transfer more"),
    )

    kept: Share = 0.95

    def compare(self, weights: Weights) -> Measured:
        assert weights.surrogate is not None
        found: list[float] = []
        same, unmoved = [], []
        for name in weights.matrices:
            tau, delta = weights.moved(weights.surrogate, name), weights.moved(weights.target, name)
            same.append(not bool(tau.any()))
            unmoved.append(not bool(delta.any()))
            if same[-1] or unmoved[-1]:
                found.append(torch.nan)
            else:
                basis = top_left(delta, self.kept)
                found.append(min(1.0, float((basis.mT @ tau).norm() / tau.norm())))
        there = [value for value in found if not math.isnan(value)]
        rows = (*weights.matrices, ALL)
        none = [False] * len(found) + [not there]
        mean = sum(there) / len(there) if there else torch.nan
        missing = {
            "the ingredient leaves it as in the base": [*same, False],
            "the merge leaves it as in the base": [*unmoved, False],
            "no matrix is moved by both": none,
        }
        return Measured(self.name, "pair", rows, {self.name: stated([*found, mean], missing)})


def top_left(matrix: torch.Tensor, kept: float) -> torch.Tensor:
    """m × k: the fewest top left singular vectors that hold this share of the Frobenius norm."""
    left, values, _ = truncated_svd(matrix, min(matrix.shape))
    energy = values.square()
    share = (energy.cumsum(dim=0) / energy.sum()).sqrt()
    count = int((share < kept - torch.finfo(torch.float64).eps * len(values)).sum()) + 1
    return left[:, :count]
