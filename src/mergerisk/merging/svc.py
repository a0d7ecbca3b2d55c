"""SVC: a merge's singular values, lowered where tasks share a direction that was counted once for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from mergerisk.merging.singular import truncated_svd
from mergerisk.merging.wrapped import Inner, Wrapper
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors


@hyperparameters
class Svc(Wrapper):
    """Singular value calibration (Li et al. 2026, arXiv 2602.05536, algorithm 1), on any merge.

    A merged task matrix is Δm = Σ_r σ_r u_r v_rᵀ. Along u_r, task t answers u_rᵀτt, and the merge u_rᵀΔm, which is
    s_rt = ⟨u_rᵀΔm, u_rᵀτt⟩ / ‖u_rᵀτt‖² times as much in the task's own direction: more than once where other tasks
    share it. Then σ_r ← T / Σt max(α, s_rt) · σ_r; nothing else is changed, and tensors that are no matrices are
    left as they are.

    Embeddings are matrices too; the authors' code leaves them out, by their names. A task without an answer along
    u_r (0/0; the authors' floor of 1e-12 makes it 0) counts as α. Directions whose σ_r is rounding noise stay as
    they are. Trap: the slower of FusionBench's two forms (0.2.33) takes tasks' answers along their own singular
    vectors, where they cannot be compared, instead of along the merge's.

    Attributes:
        of: the method; see :class:`mergerisk.merging.wrapped.Wrapper`.
        alpha: α, in (0, 1], below which an answer counts as too weak to be raised further: 1 only ever lowers
            singular values. None for 1/T, the paper's; the authors' script takes 1 for TSV-M.
    """

    of: Inner = "task_arithmetic"
    alpha: Annotated[float, Field(gt=0, le=1)] | None = None

    def combine(
        self, base: Tensors, experts: Sequence[Tensors], *, seed: int = 0
    ) -> Iterator[tuple[str, torch.Tensor]]:
        for name, merged in self.inner.combine(base, experts, seed=seed):
            if merged.ndim != 2 or merged.numel() == 0:
                yield name, merged
                continue
            pretrained = base[name]
            change = self._change(
                merged - pretrained, (expert[name] - pretrained for expert in experts), len(experts)
            )
            yield name, merged.add_(change.to(merged))

    def _change(self, merged: torch.Tensor, vectors: Iterator[torch.Tensor], count: int) -> torch.Tensor:
        """What calibrating adds to Δm, m × n in float64.

        Args:
            merged: Δm.
            vectors: every τt.
            count: T.
        """
        floor = 1 / count if self.alpha is None else self.alpha
        left, values, right = truncated_svd(merged, min(merged.shape))
        total = torch.zeros_like(values)
        for vector in vectors:
            answers = left.mT @ vector.double()
            squares = answers.square().sum(dim=1)
            shares = values * (answers * right.mT).sum(dim=1) / squares
            total += torch.where(squares > 0, shares, floor).clamp(min=floor)
        return (left * (values * (count / total - 1))) @ right.mT
