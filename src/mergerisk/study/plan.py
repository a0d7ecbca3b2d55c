"""What a plan is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.store.store import Store
    from mergerisk.study.keyed import Input
    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage
    from mergerisk.study.variants.variant import TargetVariant


@dataclass(frozen=True)
class Evaluation:
    """Where the predictions of targets that answer together are kept."""

    target: TargetVariant
    key: str


@dataclass(frozen=True)
class TaskRun:
    """One task under one seed, and where its parts are kept."""

    seed: int
    task: str
    task_key: str
    clean: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Sweep:
    """One attack on one task from one surrogate, at every budget.

    Attributes:
        steps: after how many outcomes are kept, the attack's own number last.
    """

    seed: int
    task: str
    attack: str
    surrogate: str
    epsilons: tuple[float, ...]
    steps: tuple[int, ...]
    crafted: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Piece:
    """Rows of a table that one stage gives.

    Attributes:
        names: column → what all of them have in common.
        made: the stage's result.
    """

    names: Mapping[str, str | int | float]
    made: Input[Any]


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which they can run, and how their results make up the study's.

    Attributes:
        stages: by key; inputs come before what needs them.
        task_runs: every task under every seed.
        sweeps: every curve's crafting and evaluations.
        notes: what one must know to read the results, in sentences.
        pieces: table → where its rows come from, of the tables that the study asks for besides those of every run.
    """

    study: Study
    stages: Mapping[str, Stage]
    task_runs: tuple[TaskRun, ...]
    sweeps: tuple[Sweep, ...]
    notes: tuple[str, ...] = ()
    pieces: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Plan({self.study.name!r}: {len(self.stages)} stages, {len(self.sweeps)} sweeps)"

    def missing(self, store: Store) -> list[Stage]:
        """Stages whose results are not in the store."""
        return [stage for key, stage in self.stages.items() if not store.has(key)]
