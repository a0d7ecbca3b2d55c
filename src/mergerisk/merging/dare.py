"""DARE: drop entries of task vectors at random and rescale the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field

from mergerisk.merging.states import StateMerging
from mergerisk.merging.ties import Ties
from mergerisk.randomness import generator
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors


@hyperparameters
class Dare(StateMerging):
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
        scaling: λ; None for the usual value of what follows: 0.3 for task arithmetic, for TIES its variant's.
        variant: of TIES; this and the next two are unused by task arithmetic. See :class:`Ties`.
        trim: of TIES.
        density: share of all entries, dropped ones included, that TIES keeps.
    """

    uses_seed: ClassVar[bool] = True

    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.5
    rescale: Literal["expected", "l1_norm"] = "expected"
    then: Literal["task_arithmetic", "ties"] = "task_arithmetic"
    scaling: float | None = None
    variant: Literal["mean", "sum"] = "mean"
    trim: Literal["global", "per_tensor"] = "global"
    density: Annotated[float, Field(gt=0, le=1)] = 0.2

    def combine(
        self, base: Tensors, experts: Sequence[Tensors], *, seed: int = 0
    ) -> Iterator[tuple[str, torch.Tensor]]:
        if self.then == "ties":
            ties = Ties(variant=self.variant, trim=self.trim, density=self.density, scaling=self.scaling)
            dropped = [_Dropped(self, base, expert, position, seed) for position, expert in enumerate(experts)]
            yield from ties.combine(base, dropped)
            return
        scaling = 0.3 if self.scaling is None else self.scaling
        for name, pretrained in base.items():
            merged = pretrained.clone()
            for position, expert in enumerate(experts):
                tuned = expert[name]
                merged.add_(self.drop(tuned - pretrained, _identity(tuned), position, seed), alpha=scaling)
            yield name, merged

    def drop(self, vector: torch.Tensor, identity: str, position: int, seed: int) -> torch.Tensor:
        """What is left of one tensor of a task vector, rescaled.

        Args:
            vector: of any shape; left as it is.
            identity: of the expert's tensor; see :func:`_identity`.
            position: the expert's, from 0.
            seed: the merge's.
        """
        draws = torch.rand(
            vector.shape, generator=generator(seed, "dare", position, identity), dtype=torch.float32
        )
        kept = torch.where((draws >= self.drop_rate).to(vector.device), vector, 0.0)
        if self.rescale == "expected":
            return kept / (1 - self.drop_rate)
        norm = kept.abs().sum()
        return kept * (vector.abs().sum() / norm) if norm > 0 else kept


class _Dropped(Mapping[str, torch.Tensor]):
    """θ0 + δt, each tensor made when it is asked for, and always the same."""

    def __init__(self, method: Dare, base: Tensors, expert: Tensors, position: int, seed: int) -> None:
        self._method = method
        self._base = base
        self._expert = expert
        self._position = position
        self._seed = seed
        self._identities: dict[str, str] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        pretrained, tuned = self._base[name], self._expert[name]
        if name not in self._identities:
            self._identities[name] = _identity(tuned)
        return pretrained + self._method.drop(
            tuned - pretrained, self._identities[name], self._position, self._seed
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def _identity(tensor: torch.Tensor) -> str:
    """A digest of a tensor's values, the same in every dtype that holds them and on every device."""
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    return hashlib.blake2b(values.reshape(-1).numpy().data, digest_size=16).hexdigest()
