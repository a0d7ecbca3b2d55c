"""A head that is trained on the pretrained encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import kept_head
from mergerisk.study.kinds.results import HeadStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.study.backbone import Backbone
    from mergerisk.study.stage import Result
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Probe(HeadStage):
    """A linear probe; see :func:`mergerisk.linear_probe`.

    Attributes:
        task: whose training images it is fitted to.
        backbone: whose features it reads.
        regularization: scikit-learn's C.
        images: training images.
    """

    kind: ClassVar[str] = "head"
    noun: ClassVar[str] = "train heads"
    version: ClassVar[int] = 3
    rank: ClassVar[int] = 1

    task: Input[Task]
    backbone: Backbone
    regularization: float
    images: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """A forward pass of every image that is trained on."""
        return {"forward": self.images}

    def run(self, bench: Workbench) -> Result:
        """The linear probe of the base's features, a row per class."""
        from mergerisk.finetuning import linear_probe

        task, base = bench.task(self.task), bench.base(self.backbone)
        return kept_head(linear_probe(base, task, regularization=self.regularization))
