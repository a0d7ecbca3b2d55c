"""A stage: a piece of work whose result is kept under the key of everything it depends on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from mergerisk.store.keys import content_key
from mergerisk.study.keyed import Input, Keyed, describe, unkeyed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from mergerisk.store import Json, Spooled
    from mergerisk.study.workbench import Workbench

T = TypeVar("T")

COSTS = {"forward": 1.0, "query": 1.0, "gradient": 2.5, "training": 3.5}
"""Of one image, in forward passes: forward only; asked of a black box; to the input and back; to the weights
and back."""


@dataclass(frozen=True)
class Result:
    """What a stage keeps; see :meth:`mergerisk.store.Store.put`."""

    arrays: Mapping[str, NDArray[Any]]
    info: Mapping[str, Json] = field(default_factory=dict)
    compressed: tuple[str, ...] = ()
    spooled: Mapping[str, Spooled] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage(Keyed, ABC):
    """A piece of work whose result is kept.

    A kind of stage is one subclass: a frozen dataclass, keyword only, whose fields are its parameters and edges,
    see :class:`~mergerisk.study.keyed.Keyed`; what a result does not depend on is marked as
    :func:`~mergerisk.study.keyed.unkeyed`. A stage goes to a worker by pickle, so it holds plain data only. Its
    module imports no PyTorch: planning does without.

    Attributes:
        label: what it is about, for people.
        plugins: name and version of the installed packages whose code makes it, and revisions of what is built in,
            see :func:`mergerisk.registry.plugins`.
    """

    noun: ClassVar[str]
    """What is going on while stages of the kind run, for people: ``craft``, ``train heads``."""
    version: ClassVar[int]
    """Raised when the kind's code changes what it computes, so that older artefacts are no longer taken for it."""
    rank: ClassVar[int]
    """Stages of a lower rank come first in a plan: what many wait for should not wait behind crafting."""

    label: str = unkeyed()
    plugins: tuple[str, ...] = ()

    @abstractmethod
    def run(self, bench: Workbench) -> Result:
        """Compute the result.

        Raises:
            UserError: the stage's material is at fault.
            LostArtefactError: an input is not what was written.
        """

    def cost(self) -> Mapping[str, int]:
        """Images passed through a model, by what :data:`COSTS` lists."""
        return {}

    @property
    def held(self) -> float:
        """Memory that it takes at most, in models as large as the largest that it is given: weights in training
        have gradients and moments."""
        return 5.0 if self.cost().get("training") else 2.0

    @property
    def spent(self) -> tuple[str, ...]:
        """Keys of what nothing needs any more once its own result is kept."""
        return ()

    @property
    def serves(self) -> str | None:
        """The key of the only stage that needs it, without which it is not made again."""
        return None

    @property
    def recipe(self) -> dict[str, Json]:
        """What the result is the result of."""
        found = describe(self)
        parameters = dict(found.parameters)
        if not self.plugins:  # keys without plugins know nothing of them
            del parameters["plugins"]
        made: dict[str, Json] = {"stage": self.kind, "class": type(self).__name__, "version": self.version}
        return {**made, "parameters": parameters, "inputs": found.inputs}

    @cached_property
    def key(self) -> str:
        """The SHA-256 of the stage's recipe, in hexadecimal."""
        return content_key(self.recipe)

    @cached_property
    def inputs(self) -> Mapping[str, str]:
        """Role → key of the stages that it needs."""
        return describe(self).inputs

    @property
    def work(self) -> float:
        """Estimated cost in forward passes of one image."""
        return sum(COSTS[how] * count for how, count in self.cost().items())


class StageOf(Stage, Generic[T]):
    """A stage whose result reads as a ``T``."""

    @property
    def result(self) -> Input[T]:
        """Its result, for the stages that need it."""
        return Input(self.key)


def image_counts(stages: Iterable[Stage]) -> Counter[str]:
    """Images passed through models, by what :data:`COSTS` lists."""
    total: Counter[str] = Counter()
    for stage in stages:
        total.update(stage.cost())
    return total
