"""A stage: a piece of work whose result is kept under the key of everything it depends on."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mergerisk.store.keys import content_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.store.keys import Json

STAGE_VERSIONS = {
    "task": 2,
    "head": 2,
    "expert": 2,
    "merge": 3,
    "correct": 3,
    "clean": 2,
    "craft": 2,
    "evaluate": 2,
}
"""Raised when a stage's code changes what it computes, so that older artefacts are no longer taken for it."""

COSTS = {"forward": 1.0, "query": 1.0, "gradient": 2.5, "training": 3.5}
"""Of one image, in forward passes: forward only; asked of a black box; to the input and back; to the weights
and back."""


@dataclass(frozen=True)
class Stage:
    """A piece of work whose result is kept.

    Attributes:
        kind: one of :data:`STAGE_VERSIONS`.
        label: what it is about, for people.
        parameters: what its result depends on, besides its inputs.
        inputs: role → key of another stage.
        sources: where to find what ``parameters`` identify by digest; not part of the key.
        images: images passed through a model, by what :data:`COSTS` lists.
    """

    kind: str
    label: str
    parameters: Mapping[str, Json]
    inputs: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def recipe(self) -> dict[str, Json]:
        """What the result is the result of."""
        return {
            "stage": self.kind,
            "version": STAGE_VERSIONS[self.kind],
            "parameters": dict(self.parameters),
            "inputs": dict(self.inputs),
        }

    @cached_property
    def key(self) -> str:
        return content_key(self.recipe)

    @property
    def work(self) -> float:
        """Estimated cost in forward passes of one image."""
        return sum(COSTS[how] * count for how, count in self.images.items())

    def to_message(self) -> dict[str, Any]:
        """As plain data, for a worker."""
        return asdict(self)


def image_counts(stages: Iterable[Stage]) -> Counter[str]:
    """Images passed through models, by what :data:`COSTS` lists."""
    total: Counter[str] = Counter()
    for stage in stages:
        total.update(stage.images)
    return total
