"""DARE: drop entries of task vectors at random and rescale the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field

from mergerisk.merging.dropped import DropMerging, with_norm_of
from mergerisk.merging.per_layer import Scaling
from mergerisk.merging.ties import Ties
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.merging.states import StateMerging


@hyperparameters
class Dare(DropMerging):
    """DARE (Yu et al. 2024, arXiv 2311.03099, section 3), then task arithmetic or TIES.

    Every entry of every task vector τt = θt − θ0 is dropped with probability p, and what is left rescaled to
    δt = m ∘ τt / (1 − p), whose expectation is τt. Then θ = θ0 + λ Σ δt, or TIES-merging of θ0 + δt.

    An entry's fate depends on the seed, the expert's position, the values of the expert's tensor in float32 and
    the entry's place therein alone. Names and order count for nothing, since they differ between files and models
    in memory; tensors of one expert that are equal throughout, such as tied ones, lose the same entries.

    Attributes:
        drop_rate: p, in [0, 1). The paper tunes it on validation data; 0.5 is the middle.
        rescale: ``expected`` divides by 1 − p (the paper); ``l1_norm`` gives each tensor the L1 norm it had before
            (mergekit), and leaves it alone if nothing of it is left.
        then: what merges the dropped task vectors.
        scaling: λ, or one per layer; None for the usual value of what follows: 0.3 for task arithmetic, for TIES
            its variant's.
        variant: of TIES; this and the next two are unused by task arithmetic. See :class:`Ties`.
        trim: of TIES.
        density: share of all entries, dropped ones included, that TIES keeps.
    """

    draws_of: ClassVar[str] = "dare"

    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.5
    rescale: Literal["expected", "l1_norm"] = "expected"
    then: Literal["task_arithmetic", "ties"] = "task_arithmetic"
    scaling: Scaling | None = None
    variant: Literal["mean", "sum"] = "mean"
    trim: Literal["global", "per_tensor"] = "global"
    density: Annotated[float, Field(gt=0, le=1)] = 0.2

    def follow(self) -> StateMerging | Scaling:
        if self.then == "ties":
            return Ties(variant=self.variant, trim=self.trim, density=self.density, scaling=self.scaling)
        return 0.3 if self.scaling is None else self.scaling

    def drop(self, vector: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        kept = torch.where(draws >= self.drop_rate, vector, 0.0)
        return kept / (1 - self.drop_rate) if self.rescale == "expected" else with_norm_of(kept, vector)
