"""What a table of a run is, and what it is planned with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.store import Artefact
    from mergerisk.study.keyed import Input
    from mergerisk.study.plan import Piece, Sweep
    from mergerisk.study.schema import Study
    from mergerisk.study.stage import StageOf
    from mergerisk.study.stages import Stages
    from mergerisk.study.tables.declared import Declared
    from mergerisk.study.tables.gathered import Gathered
    from mergerisk.study.variants.variant import SurrogateVariant, TargetVariant
    from mergerisk.tasks import Task

T = TypeVar("T")


@dataclass(frozen=True)
class Scene:
    """One task under one seed, as far as it is planned: what a table's stages may stand on.

    Attributes:
        study: what is planned.
        seed: of everything in the scene.
        name: the task's.
        task: the task.
        targets: who is attacked.
        surrogates: label → whom images are crafted on.
        sweeps: every attack from every surrogate.
        plugins: name and version of the package that adds the table; part of the keys of its stages.
    """

    study: Study
    seed: int
    name: str
    task: Input[Task]
    targets: tuple[TargetVariant, ...]
    surrogates: Mapping[str, SurrogateVariant]
    sweeps: tuple[Sweep, ...]
    stages: Stages
    plugins: tuple[str, ...] = ()

    def pairs(self) -> Iterator[tuple[str, SurrogateVariant, str, TargetVariant]]:
        """Every surrogate with every target that it attacks, each by itself: their labels and themselves."""
        attacked = {
            (sweep.surrogate, label)
            for sweep in self.sweeps
            for shown in sweep.evaluations
            for label in shown.target.columns
        }
        for surrogate, holder in self.surrogates.items():
            for target in self.targets:
                for label in (label for label in target.columns if (surrogate, label) in attacked):
                    yield surrogate, holder, label, target.alone(label)

    def add(self, stage: StageOf[T]) -> Input[T]:
        """Have a stage run; returns its result, for stages that need it."""
        return self.stages.add(replace(stage, plugins=self.plugins) if self.plugins else stage)

    @property
    def epsilon(self) -> float:
        """The study's middle budget."""
        return self.study.budgets.middle

    @property
    def attacked(self) -> int:
        """Images of the task that are attacked."""
        return min(self.study.images_per_task, self.stages.sizes(self.task).test)


class RunTable(ABC):
    """A table that a run leaves; a frozen dataclass of hyper-parameters, if it has any."""

    @property
    @abstractmethod
    def declared(self) -> Declared:
        """What it is; the same whatever the run."""

    def fetch(self, *, offline: bool) -> None:
        """Have what its stages need of the internet on this machine; called before anything else is done, so that
        no stage waits for it or fails by it.

        Args:
            offline: download nothing.

        Raises:
            UserError: it is not there, and must not or cannot be downloaded.
        """
        del offline

    def plan(self, scene: Scene) -> Iterable[Piece]:
        """Have the stages run that its rows come from; called for every task under every seed.

        Raises:
            UserError: the study's models cannot give what it needs.
        """
        del scene
        return ()

    @abstractmethod
    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """The table, once every stage has run.

        Raises:
            LostArtefactError: an artefact is not what was written.
        """


class StageTable(RunTable):
    """A table whose rows are what stages of its own keep."""

    @abstractmethod
    def plan(self, scene: Scene) -> Iterable[Piece]:
        """See :meth:`RunTable.plan`."""

    @abstractmethod
    def rows(self, kept: Artefact) -> Mapping[str, NDArray[Any]]:
        """The columns that a stage's result gives, each with one value per row."""

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """What the stages keep, below one another, in the declared columns."""
        from mergerisk.study.tables.blocks import stack

        found = [(piece.names, self.rows(gathered.store.get(piece.made.key))) for piece in pieces]
        return stack(found, [column.name for column in self.declared.columns])
