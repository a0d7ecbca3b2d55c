"""What entries must have in common to be ranked in one table."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.leaderboard.fitting import task_keys
from mergerisk.report.cells import axes_of
from mergerisk.report.worst import attackers
from mergerisk.study.fields.surrogates import AVERAGED, OTHER_ARCHITECTURE, OUTSIDER, UNSEEN
from mergerisk.study.paths import without_places

if TYPE_CHECKING:
    from mergerisk.leaderboard.entries import Entry
    from mergerisk.study.finished import FinishedRun
    from mergerisk.study.schema import Study


@dataclass(frozen=True)
class Attacked:
    """What is attacked of one task.

    Attributes:
        task: its name.
        content: the key of its images, labels and splits.
        images: how many are attacked.
        which: digest of their places in the test split.
    """

    task: str
    content: str
    images: int
    which: str


@dataclass(frozen=True)
class Terms:
    """On what terms methods were attacked. Equal ones can be ranked together, image by image.

    Attributes:
        tasks: by name.
        norm: what budgets bound.
        epsilons: budgets, rising, of pixels in [0, 1].
        attacks: each with its hyper-parameters, as JSON; by label.
        attackers: the threat model: whose models attacks are made on, each as a study file says it and, of those
            that the attacker makes, how, as JSON. Those who know a defense belong to what is defended, and are not
            among them.
        seeds: how many replicates.
    """

    tasks: tuple[Attacked, ...]
    norm: str
    epsilons: tuple[float, ...]
    attacks: tuple[str, ...]
    attackers: tuple[str, ...]
    seeds: int

    @property
    def reference(self) -> float:
        """The budget that methods are ranked at: the middle one, of two the smaller."""
        return self.epsilons[(len(self.epsilons) - 1) // 2]

    @property
    def images(self) -> int:
        """Attacked, over all tasks."""
        return sum(task.images for task in self.tasks)


def terms_of(entry: Entry) -> Terms:
    """The terms of an entry."""
    study = entry.run.study
    return Terms(
        tasks=_attacked(entry.run),
        norm=study.budgets.norm,
        epsilons=study.budgets.epsilon,
        attacks=tuple(sorted(_canonical(without_places(spec.as_written())) for spec in study.attacks)),
        attackers=tuple(sorted(_canonical(_holder(study, label)) for label in threat_model(entry))),
        seeds=len(study.seeds),
    )


def threat_model(entry: Entry) -> tuple[str, ...]:
    """Labels of the surrogates that attack every method: what is ranked is their worst."""
    study = entry.run.study
    knowing = {spec.label for spec in study.surrogates if spec.knows is not None}
    return tuple(label for label in attackers(axes_of(entry.summary)) if label not in knowing)


def _attacked(run: FinishedRun) -> tuple[Attacked, ...]:
    keys, found = task_keys(run), []
    for task, rows in run.outcomes.groupby("task", observed=True):
        images = sorted(rows["image"].unique().tolist())
        which = hashlib.sha256(_canonical(images).encode()).hexdigest()
        found.append(Attacked(str(task), keys.get(str(task), ""), len(images), which))
    return tuple(sorted(found, key=lambda one: one.task))


def _holder(study: Study, label: str) -> dict[str, Any]:
    """A surrogate as a study file says it, and what else decides how strong it is."""
    spec = next(spec for spec in study.surrogates if spec.label == label)
    said: dict[str, Any] = {"surrogate": spec.as_written()}
    kinds = {reference.kind for reference in spec.references}
    if kinds & {OUTSIDER, UNSEEN} and study.outsider is not None:
        said[OUTSIDER] = study.outsider.model_dump(mode="json")
    if AVERAGED in kinds and study.averaged is not None:
        said[AVERAGED] = study.averaged.model_dump(mode="json")
    if OTHER_ARCHITECTURE in kinds and study.other_architecture is not None:
        said[OTHER_ARCHITECTURE] = study.other_architecture.model_dump(mode="json")
    return dict(without_places(said))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
