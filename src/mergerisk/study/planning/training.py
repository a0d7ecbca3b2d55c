"""Models that defenses make: merges and ingredients that they train, merges that they hide; and what attackers who
know make so themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.merging.catalogue import METHODS
from mergerisk.registry import plugins
from mergerisk.seeds import derive_seed
from mergerisk.study.fields.surrogates import AWARE
from mergerisk.study.hardening import behind, hidden_by, trained_by
from mergerisk.study.kinds.train import Train, TrainIngredient
from mergerisk.study.planning.merges import MergeGroup

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.defenses import HidingDefense, TrainingDefense
    from mergerisk.models import State
    from mergerisk.study.fields.defenses import DefenseSpec
    from mergerisk.study.keyed import Input
    from mergerisk.study.planning.material import Material
    from mergerisk.study.planning.models import Models
    from mergerisk.study.schema import Study
    from mergerisk.study.stages import Stages


def with_trained(study: Study, stages: Stages, material: Material, models: Models, seed: int) -> Models:
    """The models of a seed, and those that defenses train or hide."""
    hidden = {label: _hidden(study, models, label, seed) for label in study.defended if hidden_by(study, label)}
    planner = _TrainingPlanner(study, stages, material, replace(models, hidden=hidden), seed)
    trained = [label for label in study.defended if trained_by(study, label)]
    merges = [group for label in trained for group in planner.groups(label)]
    aware = {
        (label, task): _hidden(study, models, label, seed, AWARE)
        if hidden_by(study, label)
        else (planner.aware(label, task),)
        for spec in study.surrogates
        for kind, name in spec.references
        if kind == AWARE and name is not None
        for label in filter(None, [behind(study, name)])
        for task in study.task_names
    }
    return replace(planner.models, merges=(*models.merges, *merges), aware=aware)


def _hidden(
    study: Study, models: Models, label: str, seed: int, *attacker: str
) -> tuple[Input[State] | None, ...]:
    """Merges of the ingredients whose λ and draws are a secret; of an attacker, who knows all but the secret, by
    another."""
    spec = hidden_by(study, label)
    assert spec is not None, "only what is hidden"
    merge = next(merge for merge in study.merging if merge.label == spec.labels[label])
    draws = METHODS.load(merge.name).uses_seed
    defense: HidingDefense = DEFENSES.create(spec.name, spec.parameters)
    found = []
    for drawn in defense.guessed(seed, *attacker).drawn():
        planner = replace(models.planner, seed=drawn.seed) if draws else models.planner
        found.append(planner.on_path(planner.merge(merge.name, merge.parameters), drawn.at))
    return tuple(found)


@dataclass(frozen=True)
class _TrainingPlanner:
    """Has the models of one seed trained."""

    study: Study
    stages: Stages
    material: Material
    models: Models
    seed: int

    def groups(self, label: str) -> list[MergeGroup]:
        """A target that a defense trains: one merge, or one for every task."""
        spec = trained_by(self.study, label)
        assert spec is not None, "only what is trained"
        of = spec.labels[label]
        if spec.stage == "after_merging":
            trained = self._trained(spec, of, self._start(of), self.study.task_names)
            return [MergeGroup(trained, None, {label: None})]
        merge = next(merge for merge in self.study.merging if merge.label == of)
        own = {task: self._ingredient(spec, task, self.seed) for task in self.study.with_expert}
        found = []
        attacked: tuple[str | None, ...] = (None,)
        if spec.ingredients == "all_but_attacked":
            attacked = self.study.task_names
        for only in attacked:
            public = {} if only is None else {only: self.models.ingredients[only]}
            planner = self.models.planner.of(own | public)
            for _, encoder, inside, correction in planner.planned(merge, self.study.task_names):
                found.append(MergeGroup(encoder, inside, {label: correction}, only))
        return found

    def aware(self, label: str, task: str) -> Input[State] | None:
        """The task's expert, trained by an attacker as that target was, under draws of their own."""
        spec = trained_by(self.study, label)
        if spec is None:
            return self.models.ingredients[task]
        of, seed = spec.labels[label], derive_seed(self.seed, AWARE) % 2**32
        if spec.stage == "before_merging":
            return self._ingredient(spec, task, seed)
        return self._trained(spec, f"the expert of {task}", self.aware(of, task), (task,), seed)

    def _start(self, label: str) -> Input[State] | None:
        """The encoder of a merge, of a model made elsewhere, or of what is trained already."""
        if label in self.models.released:
            return self.models.released[label]
        if trained_by(self.study, label):
            return self.groups(label)[0].encoder
        if label in self.models.hidden:
            return self.models.hidden[label][0]
        return next(group.encoder for group in self.models.merges if label in group.labels)

    def _ingredient(self, spec: DefenseSpec, task: str, seed: int) -> Input[State]:
        """An ingredient, trained: from the base, as experts are; or, where no label is read, from the expert."""
        needs_labels = self._made(spec).needs_labels
        start = None if needs_labels else self.models.ingredients[task]
        return self._trained(spec, task, start, (task,), seed, TrainIngredient)

    def _trained(
        self,
        spec: DefenseSpec,
        of: str,
        start: Input[State] | None,
        tasks: Iterable[str],
        seed: int | None = None,
        kind: type[Train] = Train,
    ) -> Input[State]:
        named, drawn = tuple(tasks), self.seed if seed is None else seed
        public = {
            task: tuple(self.models.held(reference, task) for reference in spec.references) for task in named
        }
        return self.stages.add(
            kind(
                label=f"{spec.name} on {of}, seed {drawn}",
                plugins=plugins(DEFENSES.check(spec.name)),
                backbone=self.material.backbone,
                defense=spec.name,
                parameters=spec.parameters,
                start=start,
                tasks={task: self.material.tasks[task] for task in named},
                heads={task: self.material.heads[task] for task in named},
                public=public if spec.references else {},
                split=spec.images or "training",
                seed=drawn,
                images=self._images(spec, named),
            )
        )

    def _images(self, spec: DefenseSpec, tasks: tuple[str, ...]) -> Mapping[str, int]:
        """Passes of images."""
        made, sizes = self._made(spec), [self.stages.sizes(self.material.tasks[task]) for task in tasks]
        shown = made.epochs * sum(
            size.calibration if spec.images == "calibration" else size.train for size in sizes
        )
        return {how: times * shown for how, times in made.passes(len(spec.references)).items() if times}

    def _made(self, spec: DefenseSpec) -> TrainingDefense:
        made: Any = DEFENSES.create(spec.name, spec.parameters)
        return made  # type: ignore[no-any-return]
