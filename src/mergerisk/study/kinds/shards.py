"""Stages over many images, made in parts: by several workers, and joined to what one would have made."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mergerisk.store import MissingArtefactError
from mergerisk.study.keyed import Input, describe, unkeyed
from mergerisk.study.kinds.results import ArrayStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Divisible(ArrayStage):
    """A stage that works through rows, one per image that it passes through models, each on its own.

    Attributes:
        shards: what its result is joined from; none where it is made at once. Its key is the same either way.
    """

    shards: tuple[Input[torch.Tensor], ...] = unkeyed(default=())

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many it works through, as planned."""

    @abstractmethod
    def part(self, bench: Workbench, first: int, last: int | None) -> Mapping[str, NDArray[Any]]:
        """What it keeps of some rows, to the last one where ``last`` is None; nothing if there are none."""

    @abstractmethod
    def joined(self, bench: Workbench, parts: Sequence[Mapping[str, NDArray[Any]]]) -> Result:
        """The result, of parts that are all rows in order."""

    @abstractmethod
    def whole_cost(self) -> Mapping[str, int]:
        """What :meth:`cost` is, made at once."""

    def cost(self) -> Mapping[str, int]:
        """Images passed through a model; none where others did."""
        return {} if self.shards else self.whole_cost()

    @cached_property
    def inputs(self) -> Mapping[str, str]:
        """Role → key of the stages that it needs."""
        own = describe(self).inputs
        return {f"shard/{n:03d}": made.key for n, made in enumerate(self.shards)} if self.shards else own

    @property
    def spent(self) -> tuple[str, ...]:
        return tuple(made.key for made in self.shards)

    def run(self, bench: Workbench) -> Result:
        try:
            parts = [bench.store.get(made.key).arrays for made in self.shards]
        except MissingArtefactError:  # they went when the whole was there, which has been lost since
            parts = []
        return self.joined(bench, parts or [self.part(bench, 0, None)])

    def divided(self, count: int, batch_size: int) -> tuple[tuple[Shard, ...], Self]:
        """At most ``count`` shards of whole batches, and the same stage joined from them; itself where there are
        not two. Whole batches, so that each is computed as it would be among all: sums differ in their last digits
        with what stands beside them."""
        batches = -(-self.rows // batch_size)
        count = min(count, batches)
        if count < 2 or self.shards:
            return (), self
        bounds = [batch_size * (number * batches // count) for number in range(count)]
        ends = [*bounds[1:], None]
        shards = tuple(
            Shard(
                label=f"{self.label}, {first} to {self.rows if last is None else last}",
                of=self.key,
                first=first,
                last=last,
                whole=self,
            )
            for first, last in zip(bounds, ends, strict=True)
        )
        return shards, replace(self, shards=tuple(shard.result for shard in shards))


@dataclass(frozen=True, kw_only=True)
class Shard(ArrayStage):
    """What a stage keeps of some of its rows; it goes once the whole is joined.

    Attributes:
        of: the stage's key.
        first: of the rows.
        last: the one before it is the last; None for the stage's own end.
        whole: the stage.
    """

    kind: ClassVar[str] = "shard"
    noun: ClassVar[str] = "parts of stages"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 7

    of: str
    first: int
    last: int | None
    whole: Divisible = unkeyed()

    @cached_property
    def inputs(self) -> Mapping[str, str]:
        """Those of the whole."""
        return self.whole.inputs

    @property
    def serves(self) -> str:
        return self.of

    def cost(self) -> Mapping[str, int]:
        """Its share of the whole's."""
        last = self.whole.rows if self.last is None else self.last
        return {
            how: count * (last - self.first) // max(1, self.whole.rows)
            for how, count in self.whole.whole_cost().items()
        }

    def run(self, bench: Workbench) -> Result:
        """The same arrays as the whole's, as far as they go; none where the task has no such rows after all."""
        found = self.whole.part(bench, self.first, self.last)
        return Result(found, compressed=tuple({"adversarial"} & found.keys()))
