"""OPCM: experts are merged one after another, each outside of what those before it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, NonNegativeInt

from mergerisk.errors import UserError
from mergerisk.merging.singular import truncated_svd
from mergerisk.merging.states import StateMerging
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors


@hyperparameters
class Opcm(StateMerging):
    """Orthogonal projection-based continual merging (Tang et al. 2025, arXiv 2501.09522), as the authors' code is.

    Δ1 = τ1. When expert t arrives, every matrix of τt = θt − θ0 is projected: with Δ_{t−1} = U S Vᵀ, and r its
    leading directions that hold no more than α of the sum of its singular values, U P Vᵀ with P = Uᵀ τt V loses
    the block P[:r, :r] and its diagonal. Tensors that are no matrices are taken as they are. Then Δt = (λ_{t−1}
    Δ_{t−1} + that) / λt, where λt makes the length of Δt over all tensors the mean length of τ1 … τt; λ1 = 1.
    θ = θ0 + Δ_T.

    λ_{t−1} Δ_{t−1} is the sum before it was divided, and U and V do not depend on λ: so sums are added up tensor
    by tensor, and divided once, at the end. They are in memory together, as large as one model.

    Embeddings are matrices too; the authors' code projects the weights of linear layers alone. Directions whose
    singular value is rounding noise are no directions of Δ, and the diagonal ends before them; an SVD has
    arbitrary ones there. Trap: at α = 1 nothing exceeds the sum, and the authors' code takes r = 0, the weakest
    projection, where r is all of Δ's directions here.

    Attributes:
        alpha: α, in [0, 1]; 0.5 in the authors' configuration.
        order: places of experts, from 0, in the order that they arrive in; those that it leaves out have not
            arrived. None for all of them, in the order that they are given in (in a study that of its tasks). The
            result depends on it. The authors' configuration shuffles.
    """

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    order: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None

    def check_count(self, count: int) -> None:
        order = self.order or ()
        if len({*order}) < len(order):
            raise UserError(f"opcm: order: each expert arrives once, got {list(order)}")
        if any(place >= count for place in order):
            raise UserError(f"opcm: order: places of {count} experts are 0 to {count - 1}, got {max(order)}")

    def combine(
        self,
        base: Tensors,
        experts: Sequence[Tensors],
        *,
        seed: int = 0,  # noqa: ARG002  # nothing is random
    ) -> Iterator[tuple[str, torch.Tensor]]:
        arrived = [experts[place] for place in self.order or range(len(experts))]
        if len(arrived) == 1:
            yield from ((name, arrived[0][name].clone()) for name in base)
            return
        squares = [0.0] * len(arrived)
        changes = {}
        for name, pretrained in base.items():
            change = torch.zeros_like(pretrained)
            for place, expert in enumerate(arrived):
                vector = expert[name] - pretrained
                squares[place] += _square(vector)
                change.add_(self._projected(vector, change) if place and vector.ndim == 2 else vector)
            changes[name] = change
        length = sum(map(_square, changes.values())) ** 0.5
        mean = sum(square**0.5 for square in squares) / len(squares)
        for name, pretrained in base.items():
            yield name, torch.add(pretrained, changes.pop(name), alpha=mean / length if length else 0.0)

    def _projected(self, vector: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """A task matrix outside of what was changed before it arrived, m × n."""
        if not bool(before.any()):
            return vector
        left, values, right = truncated_svd(before, min(before.shape))
        shares = values.cumsum(dim=0) / values.sum()
        leading = len(values) if self.alpha == 1 else int((shares <= self.alpha).sum())
        along = left.mT @ vector.double() @ right
        lost = torch.diag(along.diagonal())
        lost[:leading, :leading] = along[:leading, :leading]
        return vector - (left @ lost @ right.mT).to(vector)


def _square(tensor: torch.Tensor) -> float:
    """The squared length."""
    return float(tensor.double().square().sum())
