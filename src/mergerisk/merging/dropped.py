"""What DARE and DELLA share: entries of task vectors are dropped at random, and the rest is merged."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.merging.per_layer import at
from mergerisk.merging.states import StateMerging
from mergerisk.randomness import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors
    from mergerisk.merging.per_layer import Scaling


class DropMerging(StateMerging):
    """A method that drops entries of every task vector, and merges what is left with another method.

    An entry's fate depends on the seed, the expert's position, the values of the expert's tensor in float32 and
    the entry's place therein alone. Names and order count for nothing, since they differ between files and models
    in memory; tensors of one expert that are equal throughout, such as tied ones, lose the same entries.
    """

    uses_seed: ClassVar[bool] = True
    draws_of: ClassVar[str]
    """Names its random numbers."""

    @abstractmethod
    def follow(self) -> StateMerging | Scaling:
        """What merges the experts that are left: a method, or λ of the sum of what is left of task vectors."""

    @abstractmethod
    def drop(self, vector: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """What is left of one tensor of a task vector, rescaled.

        Args:
            vector: of any shape; left as it is.
            draws: a number in [0, 1) per entry, float32.
        """

    def combine(
        self, base: Tensors, experts: Sequence[Tensors], *, seed: int = 0
    ) -> Iterator[tuple[str, torch.Tensor]]:
        follow = self.follow()
        if isinstance(follow, StateMerging):
            dropped = [_Dropped(self, base, expert, position, seed) for position, expert in enumerate(experts)]
            yield from follow.combine(base, dropped)
            return
        for name, pretrained in base.items():
            scaling = at(follow, name) if isinstance(follow, dict) else follow
            merged = pretrained.clone()
            for position, expert in enumerate(experts):
                tuned = expert[name]
                left = self.left(tuned - pretrained, identity(tuned), position, seed)
                merged.add_(left, alpha=scaling)
            yield name, merged

    def left(self, vector: torch.Tensor, identity: str, position: int, seed: int) -> torch.Tensor:
        """:meth:`drop` with the numbers that belong to an expert's tensor.

        Args:
            vector: of any shape; left as it is.
            identity: of the expert's tensor; see :func:`identity`.
            position: the expert's, from 0.
            seed: the merge's.
        """
        draws = generator(seed, self.draws_of, position, identity)
        return self.drop(vector, torch.rand(vector.shape, generator=draws, dtype=torch.float32).to(vector.device))


def with_norm_of(kept: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """``kept`` scaled to the L1 norm of ``vector``; as it is, if it is zero."""
    norm = kept.abs().sum()
    return kept * (vector.abs().sum() / norm) if norm > 0 else kept


class _Dropped(Mapping[str, torch.Tensor]):
    """θ0 + δt, each tensor made when it is asked for, and always the same."""

    def __init__(self, method: DropMerging, base: Tensors, expert: Tensors, position: int, seed: int) -> None:
        self._method = method
        self._base = base
        self._expert = expert
        self._position = position
        self._seed = seed
        self._identities: dict[str, str] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        pretrained, tuned = self._base[name], self._expert[name]
        if name not in self._identities:
            self._identities[name] = identity(tuned)
        return pretrained + self._method.left(
            tuned - pretrained, self._identities[name], self._position, self._seed
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def identity(tensor: torch.Tensor) -> str:
    """A digest of a tensor's values, the same in every dtype that holds them and on every device."""
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    return hashlib.blake2b(values.reshape(-1).numpy().data, digest_size=16).hexdigest()
