"""A model that a defense trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import to_arrays
from mergerisk.study.kinds.results import ModelStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models import Head, State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Train(ModelStage):
    """An encoder, trained on images that are never attacked; see :class:`mergerisk.defenses.TrainingDefense`.

    Attributes:
        backbone: what it is an encoder of.
        defense: its name.
        parameters: its hyper-parameters, defaults filled in.
        start: the encoder that is trained, a merge's or any; None for the pretrained one.
        tasks: task → what is learnt from.
        heads: task → its head.
        public: task → public models that the defense looks at; None among them is the pretrained one.
        split: which images are learnt from; calibration images have no labels.
        seed: of what is drawn.
        images: what it passes through models, by what :data:`mergerisk.study.stage.COSTS` lists.
    """

    kind: ClassVar[str] = "train"
    noun: ClassVar[str] = "train defenses"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 4

    backbone: Backbone
    defense: str
    parameters: Mapping[str, Any]
    start: Input[State] | None
    tasks: Mapping[str, Input[Task]]
    heads: Mapping[str, Input[Head]]
    public: Mapping[str, tuple[Input[State] | None, ...]]
    split: Literal["training", "calibration"]
    seed: int
    images: Mapping[str, int] = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Passes of training images, as the defense says."""
        return self.images

    def run(self, bench: Workbench) -> Result:
        """The trained encoder's parameters by name, and its own form where it differs from the base's."""
        from mergerisk.defenses import TrainingData
        from mergerisk.defenses.catalogue import DEFENSES

        data = {}
        for name, made in self.tasks.items():
            task, head = bench.task(made), bench.head(self.heads[name])
            public = [bench.model(self.backbone, state).encoder for state in self.public.get(name, ())]
            if self.split == "calibration":
                data[name] = TrainingData(task.calibration.images, head, None, public)
            else:
                split = task.training_split("a training defense")
                data[name] = TrainingData(split.images, head, split.labels, public)
        start = bench.model(self.backbone, self.start).encoder
        defense = DEFENSES.create(self.defense, self.parameters)
        trained = defense.train(start, data, seed=self.seed)
        form = None if self.start is None else bench.store.manifest(self.start.key)["info"].get("form")
        return Result(to_arrays(trained.state()), {} if form is None else {"form": form})


@dataclass(frozen=True, kw_only=True)
class TrainIngredient(Train):
    """The same, before it is merged."""

    rank: ClassVar[int] = 2
