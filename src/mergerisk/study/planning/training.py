"""Models that defenses make: bases, ingredients and merges that they train, weights that they mix, merges that
they hide; and what attackers who know make so themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.merging.catalogue import METHODS
from mergerisk.registry import plugins
from mergerisk.seeds import derive_seed
from mergerisk.study.fields.surrogates import AWARE
from mergerisk.study.hardening import PER_TASK, behind, changed_by, hidden_by, mixing_of
from mergerisk.study.kinds.from_base import ExpertFromBase
from mergerisk.study.kinds.given_model import GivenModel
from mergerisk.study.kinds.mix import Mix
from mergerisk.study.kinds.train import Train, TrainIngredient
from mergerisk.study.planning.merges import MergeGroup

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.defenses import HidingDefense, MixingDefense, TrainingDefense
    from mergerisk.models import State
    from mergerisk.study.fields.defenses import DefenseSpec
    from mergerisk.study.keyed import Input
    from mergerisk.study.planning.material import Material
    from mergerisk.study.planning.models import Models
    from mergerisk.study.schema import Study
    from mergerisk.study.stages import Stages


def with_trained(study: Study, stages: Stages, material: Material, models: Models, seed: int) -> Models:
    """The models of a seed, and those that defenses train, mix or hide."""
    hidden = {label: _hidden(study, models, label, seed) for label in study.defended if hidden_by(study, label)}
    planner = _TrainingPlanner(study, stages, material, replace(models, hidden=hidden), seed)
    trained = [label for label in study.defended if changed_by(study, label)]
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
        """A target whose weights a defense changes: one merge, or one for every task."""
        spec = changed_by(self.study, label)
        assert spec is not None, "only what is changed"
        of = spec.labels[label]
        if mixing_of(spec):
            return [MergeGroup(self._mixed(spec, of, self._start(of), self.study.task_names), None, {label: None})]
        if spec.stage == "after_merging":
            trained = self._trained(spec, of, self._start(of), self.study.task_names)
            return [MergeGroup(trained, None, {label: None})]
        merge = next(merge for merge in self.study.merging if merge.label == of)
        base = self._base(spec, self.seed) if spec.stage == "before_fine_tuning" else None
        own = {task: self._ingredient(spec, task, self.seed) for task in self.study.with_expert}
        found = []
        for only in self.study.task_names if spec.ingredients in PER_TASK else (None,):
            ingredients = own
            if only is not None:
                public = {only: self.models.ingredients[only]}
                ingredients = own | public if spec.ingredients == "all_but_attacked" else {only: own[only]}
            planner = self.models.planner.of(ingredients, base)
            for _, encoder, inside, correction in planner.planned(merge, self.study.task_names):
                found.append(MergeGroup(encoder, inside, {label: correction}, only))
        return found

    def aware(self, label: str, task: str) -> Input[State] | None:
        """The task's expert, trained by an attacker as that target was, under draws of their own; of a base that
        is public as bases are, the expert that was fine-tuned from it."""
        spec = changed_by(self.study, label)
        if spec is None:
            return self.models.ingredients[task]
        of, seed = spec.labels[label], derive_seed(self.seed, AWARE) % 2**32
        if mixing_of(spec):
            return self._mixed(spec, f"the expert of {task}", self.aware(of, task), (task,), seed)
        if spec.stage == "before_fine_tuning" and not self._made(spec).secret:
            seed = self.seed
        if spec.stage != "after_merging":
            return self._ingredient(spec, task, seed)
        return self._trained(spec, f"the expert of {task}", self.aware(of, task), (task,), seed)

    def _start(self, label: str) -> Input[State] | None:
        """The encoder of a merge, of a model made elsewhere, or of what is trained already."""
        if label in self.models.released:
            return self.models.released[label]
        if changed_by(self.study, label):
            return self.groups(label)[0].encoder
        if label in self.models.hidden:
            return self.models.hidden[label][0]
        return next(group.encoder for group in self.models.merges if label in group.labels)

    def _ingredient(self, spec: DefenseSpec, task: str, seed: int) -> Input[State]:
        """An ingredient, trained: from the base, as experts are; where no label is read, from the expert; or
        fine-tuned as every expert is, from a base that was trained."""
        if spec.stage == "before_fine_tuning":
            made, head = self.material.tasks[task], self.material.heads[task]
            return self.stages.add(
                ExpertFromBase(
                    label=f"{task} from the base by {spec.name}, seed {seed}",
                    task=made,
                    head=head,
                    backbone=self.material.backbone,
                    fine_tuning=self.study.experts.fine_tune,
                    name=task,
                    seed=seed,
                    images=self.stages.sizes(made).train,
                    base=self._base(spec, seed),
                )
            )
        needs_labels = self._made(spec).needs_labels
        start = None if needs_labels else self.models.ingredients[task]
        return self._trained(spec, task, start, (task,), seed, TrainIngredient)

    def _base(self, spec: DefenseSpec, seed: int) -> Input[State]:
        """The base, trained on all tasks together."""
        return self._trained(spec, "the base", None, self.study.task_names, seed, TrainIngredient)

    def _mixed(
        self,
        spec: DefenseSpec,
        of: str,
        start: Input[State] | None,
        tasks: tuple[str, ...],
        seed: int | None = None,
    ) -> Input[State] | None:
        """A model's weights, mixed with those of what was trained from it or from the base."""
        defense: MixingDefense = DEFENSES.create(spec.name, spec.parameters)
        robust = None if spec.robust is None else self._given(spec.robust)
        members, weights = [], []
        for member in defense.trained(robust=robust is not None):
            begins = {"model": start, "base": None, "robust": robust}[member.start]
            called = of if member.start == "model" else "the base"
            for step in member.steps:
                one = spec.model_copy(update={"name": step.defense, "parameters": step.parameters})
                begins = self._trained(one, called, begins, tasks, seed)
                called = f"{called}+{step.defense}"
            members.append(begins)
            weights.append(member.weight)
        if weights == [1]:
            return members[0]
        planner, drawn = self.models.planner, self.seed if seed is None else seed
        return self.stages.add(
            Mix(
                label=f"{spec.label} on {of}, seed {drawn}",
                plugins=plugins(DEFENSES.check(spec.name)),
                backbone=self.material.backbone,
                members=tuple(members),
                weights=tuple(weights),
                calibration=planner.calibration if planner.batch_norm else None,
                seed=drawn if planner.batch_norm else None,
                images=planner.for_batch_norm(),
            )
        )

    def _given(self, file: str) -> Input[State]:
        """A model made elsewhere."""
        from mergerisk.models.sources.experts import expert_identity

        identity = expert_identity(file)
        return self.stages.add(
            GivenModel(label=file, backbone=self.material.backbone, identity=identity, file=file)
        )

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
