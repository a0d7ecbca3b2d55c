"""What every target variant knows: whom it stands for, what it depends on, and how it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from mergerisk.study.keyed import Input, Keyed, unkeyed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from mergerisk.models import Head
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Images


@dataclass(frozen=True, kw_only=True)
class TargetVariant(Keyed, ABC):
    """Targets of one task that answer together, in one pass over the images.

    Attributes:
        columns: target → which column of the answers is its own. What a target is called changes no answer.
        task: the task's name.
        head: the task's head.
    """

    answers_by: ClassVar[Literal["forward", "query"]] = "forward"
    """What an answer costs; see :data:`mergerisk.study.stage.COSTS`."""

    columns: Mapping[str, int] = unkeyed()
    task: str
    head: Input[Head]

    @property
    def passes(self) -> int:
        """Encoders that an image passes through."""
        return 1

    def alone(self, label: str) -> Self:
        """One of the targets, by itself."""
        assert [*self.columns] == [label], "several only where a variant knows how to part them"
        return self

    @property
    def labels(self) -> str:
        """The targets' names, for people."""
        return ", ".join(self.columns)

    @abstractmethod
    def answer(self, bench: Workbench, images: Images, first: int = 0) -> torch.Tensor:
        """Classes that the targets name for images (N × 3 × H × W in [0, 1]): int64, columns × N.

        Args:
            bench: where the models are.
            images: that are shown.
            first: of images that are a part of more, how many stand before them.
        """


class SurrogateVariant(TargetVariant):
    """One that images can be crafted on as well."""

    @property
    def gradient_passes(self) -> int:
        """Encoders that an image passes through, there and back, for one gradient."""
        return self.passes

    def known(self, seed: int, of: SurrogateVariant | None = None) -> SurrogateVariant:  # noqa: ARG002
        """What an attacker crafts on who knows what stands before the target, and what it draws, but no secret.

        Args:
            seed: of the attacker's own draws.
            of: the model that they hold behind that; the target's own by default: a white box.
        """
        return self if of is None else of

    @abstractmethod
    def classifier(self, bench: Workbench) -> nn.Module:
        """The one target, to craft on: from pixels in [0, 1] to logits."""
