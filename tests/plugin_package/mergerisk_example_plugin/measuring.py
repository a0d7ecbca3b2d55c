"""A table with a kind of stage of its own that mergerisk does not know of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.plan import Piece
from mergerisk.study.stage import Result, StageOf
from mergerisk.study.tables.declared import Column, Declared
from mergerisk.study.tables.table import StageTable
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from mergerisk.store import Artefact
    from mergerisk.study.tables.table import Scene
    from mergerisk.study.variants.variant import SurrogateVariant
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Confidence(StageOf[Any]):
    """How sure a model is of each attacked image before it is attacked.

    Attributes:
        task: whose test images are shown.
        model: who is asked.
        images: how many, the first of the test split.
    """

    kind: ClassVar[str] = "confidence"
    noun: ClassVar[str] = "ask how sure"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 20

    task: Input[Task]
    model: SurrogateVariant
    images: int
    shown: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        return {"forward": self.shown * self.model.passes}

    def run(self, bench: Workbench) -> Result:
        import torch

        images = bench.task(self.task).test.images[: self.images]
        with torch.no_grad():
            sure = self.model.classifier(bench)(images).softmax(dim=1).amax(dim=1)
        return Result({"confidence": sure.numpy()})


@hyperparameters
class ConfidenceTable(StageTable):
    """Per surrogate and image.

    Attributes:
        images: of every task.
    """

    declared: ClassVar[Declared] = Declared(
        "confidence",
        "image and surrogate",
        (
            Column("task", "name", "the task"),
            Column("surrogate", "name", "who is asked"),
            Column("seed", "number", "of the study"),
            Column("image", "number", "place in the test split"),
            Column("confidence", "number", "largest probability of a class, in [0, 1]"),
        ),
    )

    images: int = 5

    def plan(self, scene: Scene) -> Iterator[Piece]:
        for label, model in scene.surrogates.items():
            stage = Confidence(
                label=f"{label} on {scene.name}, seed {scene.seed}",
                task=scene.task,
                model=model,
                images=self.images,
                shown=self.images,
            )
            yield Piece({"task": scene.name, "surrogate": label, "seed": scene.seed}, scene.add(stage))

    def rows(self, kept: Artefact) -> Mapping[str, NDArray[Any]]:
        import numpy as np

        sure = kept.arrays["confidence"]
        return {"image": np.arange(len(sure)), "confidence": sure}
