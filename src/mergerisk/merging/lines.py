"""LiNeS: deeper blocks of a merge keep more of what it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError
from mergerisk.merging.wrapped import Inner, Wrapper
from mergerisk.models.inside.blocks import blocks_in
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors


@hyperparameters
class Lines(Wrapper):
    """Layer-increasing network scaling (Wang et al. 2025, arXiv 2410.17146, section 4), on any merge.

    θ = θ0 + (α + β · l / (L − 1)) · Δm in block l = 0 … L − 1, and θ0 + α · Δm outside of blocks, where Δm is what
    the wrapped method changes: shallow blocks, whose features tasks share, move less than deep ones. Blocks are
    told by the tensors' names (:func:`mergerisk.models.inside.blocks.blocks_in`), in the order they run in. A λ of
    the wrapped method multiplies both α and β; the paper wraps methods of λ = 1.

    Trap: told by ``.0.`` anywhere in a name, as in the authors' code, a block is confused with whatever else is
    numbered within it.

    Attributes:
        of: the method; see :class:`mergerisk.merging.wrapped.Wrapper`.
        alpha: α; None for the paper's rule for merges, ‖Σ τt‖₁ / (T · ‖Δm‖₁) over all tensors, for which
            everything is merged twice.
        beta: β, how much more of Δm the last block gets than the first. The paper searches it on labelled images,
            around methods of λ = 1; 1 around task arithmetic of λ = 0.3 is the paper's 0.3.

    Raises:
        UserError: the tensors' names hold no blocks.
    """

    of: Inner = "task_arithmetic"
    alpha: float | None = None
    beta: float = 1.0

    def check_names(self, names: Sequence[str]) -> None:
        super().check_names(names)
        if not blocks_in(names):
            raise UserError(
                "lines: no tensor's name holds the number of a block, so there is no depth to scale by"
            )

    def combine(
        self, base: Tensors, experts: Sequence[Tensors], *, seed: int = 0
    ) -> Iterator[tuple[str, torch.Tensor]]:
        alpha = self._alpha(base, experts, seed) if self.alpha is None else self.alpha
        blocks = [f"{block}." for block in blocks_in(base)]
        for name, merged in self.inner.combine(base, experts, seed=seed):
            place = next((place for place, block in enumerate(blocks) if name.startswith(block)), 0)
            factor = alpha + self.beta * place / max(1, len(blocks) - 1)
            pretrained = base[name]
            yield name, torch.add(pretrained, merged.sub_(pretrained), alpha=factor)

    def _alpha(self, base: Tensors, experts: Sequence[Tensors], seed: int) -> float:
        """‖Σ τt‖₁ / (T · ‖Δm‖₁); 0 where nothing was changed."""
        summed = changed = 0.0
        for name, merged in self.inner.combine(base, experts, seed=seed):
            pretrained = base[name]
            total = torch.zeros_like(pretrained, dtype=torch.float64)
            for expert in experts:
                total += expert[name] - pretrained
            summed += float(total.abs().sum())
            changed += float((merged - pretrained).abs().sum(dtype=torch.float64))
        return summed / (len(experts) * changed) if changed else 0.0
