"""How much the merged tasks are in each other's way."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.causes.given import Need
from mergerisk.causes.result import Column, Measured, stated
from mergerisk.causes.subspace_alignment import Share, top_left
from mergerisk.causes.weights import ALL, WeightCause
from mergerisk.merging.singular import truncated_svd
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.causes.weights import Weights

_NULL = 1e-7
"""What an expert has along a direction is rounding below this share of its own norm."""


@hyperparameters
class Interference(WeightCause):
    """Of every matrix: ‖(UᵀU − I) Σ (VᵀV − I)‖₁, the sum of absolute entries, where U, Σ and V hold the
    min(m, n) / T top singular vectors and values of all T task matrices side by side (singular task interference,
    Gargiulo et al. 2025, arXiv 2412.00081); the same over ΣΣ, which is ours, since the first grows with rank and
    T; and the mean over tasks i and the merge's top left singular vectors u_r of
    ⟨u_rᵀΔm, u_rᵀΔi⟩ / ‖u_rᵀΔi‖² (spectral over-accumulation, SVC 2026, arXiv 2602.05536). The row ``all`` is the
    mean over matrices.

    Interference lies in [0, ∞), 0 for tasks in orthogonal subspaces, and for a single one. Over-accumulation has a
    sign: 1 where the merge moves along u_r just as the task does, above 1 where tasks add up. Ratios over nothing
    are left out of the mean; where all are, the value is missing.

    Attributes:
        kept: share of the merge's norm that the vectors u_r hold.
    """

    name: ClassVar[str] = "interference"
    needs: ClassVar[frozenset[Need]] = frozenset({"base", "experts"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "interference", "sum of singular values' size", 0.0, None, "single ingredients' attacks transfer less"
        ),
        Column("interference_relative", "share of Σσ", 0.0, None, "single ingredients' attacks transfer less"),
        Column(
            "over_accumulation", "ratio", None, None, "directions that tasks share are too strong in the merge"
        ),
    )

    kept: Share = 0.95

    def compare(self, weights: Weights) -> Measured:
        rows = [self._of(weights, name) for name in weights.matrices]
        columns = {}
        for position, column in enumerate(self.columns):
            found = [row[position] for row in rows]
            there = [value for value in found if value is not None]
            mean = sum(there) / len(there) if there else None
            values = [torch.nan if value is None else value for value in (*found, mean)]
            reason = "no task moves it" if position < 2 else "no task moves where the merge does"
            columns[column.name] = stated(values, {reason: [value is None for value in (*found, mean)]})
        return Measured(self.name, "pair", (*weights.matrices, ALL), columns)

    def _of(self, weights: Weights, name: str) -> tuple[float | None, float | None, float | None]:
        tasks = [weights.moved(expert, name) for expert in weights.experts.values()]
        found = _singular_interference(tasks)
        merged = weights.moved(weights.target, name)
        over = _over_accumulation(merged, tasks, self.kept) if bool(merged.any()) else None
        return *found, over


def _singular_interference(tasks: Sequence[torch.Tensor]) -> tuple[float | None, float | None]:
    """‖(UᵀU − I) Σ (VᵀV − I)‖₁ of task matrices, m × n, and the same over the sum of Σ; None if all are zero."""
    rank = max(1, min(tasks[0].shape) // len(tasks))
    left, values, right = (
        (
            torch.cat(parts, dim=-1)
            for parts in zip(*(truncated_svd(task, rank) for task in tasks if bool(task.any())), strict=True)
        )
        if any(bool(task.any()) for task in tasks)
        else (None, None, None)
    )
    if left is None or values is None or right is None:
        return None, None
    unit = torch.eye(len(values), dtype=torch.float64, device=values.device)
    found = float((((left.mT @ left - unit) * values) @ (right.mT @ right - unit)).abs().sum())
    return found, found / float(values.sum())


def _over_accumulation(merged: torch.Tensor, tasks: Sequence[torch.Tensor], kept: float) -> float | None:
    """The mean of ⟨u_rᵀΔm, u_rᵀΔi⟩ / ‖u_rᵀΔi‖² over the top left vectors of Δm (m × n) and the tasks; None if no
    task has anything along them."""
    basis = top_left(merged, kept)
    along = basis.mT @ merged
    ratios: list[float] = []
    for task in tasks:
        own = basis.mT @ task
        sizes = own.norm(dim=1)
        there = sizes > _NULL * task.norm()
        ratios += ((along * own).sum(dim=1)[there] / sizes[there].square()).tolist()
    return sum(ratios) / len(ratios) if ratios else None
