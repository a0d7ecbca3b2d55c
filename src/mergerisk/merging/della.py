"""DELLA: drop entries of task vectors at random, small ones more often, and rescale the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from mergerisk.merging.dropped import DropMerging, with_norm_of
from mergerisk.merging.per_layer import Scaling
from mergerisk.merging.ties import Ties
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.merging.states import StateMerging

_USUAL = {"mean": 1.1, "sum": 0.3}


@hyperparameters
class Della(DropMerging):
    """DELLA-merging (Deep et al. 2024, arXiv 2406.11617) as in the authors' code: drop by MAGPRUNE, elect, fuse.

    Drop: the n entries of every row of a task vector τt = θt − θ0 are ranked by magnitude, r = 0 for the smallest,
    and entry r is dropped with probability p_r = p + ε/2 − ε · r / (n − 1), p in the mean. What is left is
    rescaled to δt = m ∘ τt / (1 − p_r), whose expectation is τt. Elect and fuse: every entry elects the sign of Σ
    δt (where what is left cancels out, the sign that most entries of the model elected), and what agrees is
    averaged, as in TIES without a trim; θ = θ0 + λ times that.

    An entry's fate depends on what it does in :class:`Dare`, by random numbers of its own. Tensors of more than
    two dimensions are rows by their first one, those of fewer are one row. The authors' code and mergekit rank a
    convolution's weights along the second dimension alone, and divide 0 by 0 for a row of a single entry, whose
    probability is p here.

    Attributes:
        drop_rate: p, in [0, 1). 0.3 is the authors' example of use, as are ε and λ.
        window: ε, how far the probabilities of a row are apart; p ± ε/2 must be in [0, 1). 0 is DARE. mergekit's
            ``epsilon`` is half of it.
        rescale: ``expected`` divides by 1 − p_r (the authors); ``l1_norm`` gives each tensor the L1 norm it had
            before (mergekit), and leaves it alone if nothing of it is left.
        elect: False adds up what is left without an election (mergekit's ``della_linear``).
        variant: ``mean`` divides by the number of agreeing entries (the authors); ``sum`` does not. Unused without
            an election.
        scaling: λ, or one per layer; None for 1.1 after an election, and 0.3, task arithmetic's, for ``sum`` and
            without one.
    """

    draws_of: ClassVar[str] = "della"

    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.3
    window: Annotated[float, Field(ge=0, lt=1)] = 0.14
    rescale: Literal["expected", "l1_norm"] = "expected"
    elect: bool = True
    variant: Literal["mean", "sum"] = "mean"
    scaling: Scaling | None = None

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if not (self.window / 2 <= self.drop_rate and self.drop_rate + self.window / 2 < 1):
            raise ValueError(
                f"window: drop_rate {self.drop_rate:g} ± window/2 must be in [0, 1), got {self.window:g}; lower it"
            )
        return self

    def follow(self) -> StateMerging | Scaling:
        scaling = (_USUAL[self.variant] if self.elect else 0.3) if self.scaling is None else self.scaling
        return (
            Ties(variant=self.variant, trim="per_tensor", density=1.0, scaling=scaling) if self.elect else scaling
        )

    def drop(self, vector: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        probabilities = self._probabilities(vector)
        kept = torch.where(draws >= probabilities, vector, 0.0)
        return kept / (1 - probabilities) if self.rescale == "expected" else with_norm_of(kept, vector)

    def _probabilities(self, vector: torch.Tensor) -> torch.Tensor:
        """p_r of every entry."""
        rows = vector.flatten(1) if vector.ndim >= 2 else vector.reshape(1, -1)
        size = rows.shape[1]
        if size < 2:
            return torch.full_like(vector, self.drop_rate)
        places = rows.abs().argsort(dim=1, stable=True)
        falling = torch.linspace(0.5, -0.5, size, dtype=rows.dtype, device=rows.device)
        by_rank = (self.drop_rate + self.window * falling).expand_as(rows)
        return torch.empty_like(rows).scatter_(1, places, by_rank).reshape(vector.shape)
