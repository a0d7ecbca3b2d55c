"""The encoders of one seed: experts, outsiders, models made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mergerisk.study.calibrating import CalibrationData
from mergerisk.study.fields import surrogates
from mergerisk.study.fields.models import Averaged, Outsider
from mergerisk.study.fields.surrogates import AVERAGED, OUTSIDER, UNSEEN
from mergerisk.study.kinds.average import Average
from mergerisk.study.kinds.expert import Expert
from mergerisk.study.kinds.given_model import GivenModel
from mergerisk.study.kinds.unbalanced_expert import UnbalancedExpert
from mergerisk.study.planning.material import Carried, plan_head, plan_probe
from mergerisk.study.planning.merges import merge_planner, plan_merges, plan_own_merges
from mergerisk.validation import as_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models import Head, State
    from mergerisk.study.fields.surrogates import Reference
    from mergerisk.study.keyed import Input
    from mergerisk.study.planning.material import Material
    from mergerisk.study.planning.merges import MergeGroup, MergePlanner
    from mergerisk.study.schema import Study
    from mergerisk.study.stages import Stages
    from mergerisk.tasks import Task


@dataclass(frozen=True)
class Models:
    """The encoders of one seed.

    Attributes:
        ingredients: what is merged, in the order of the recipe: experts by task, others by name.
        outsiders: task → the outsider that attacks it.
        others: task → encoder of the other architecture; None for its pretrained one.
        released: target → a model made elsewhere.
        merges: merges that share an encoder, together.
        unseen: task → a model that no defense is trained on, if one attacks.
        averages: task → the average that attacks it, if one does.
        own_merges: method, or a label of merging → what an attacker merges so.
        planner: what had the merges made.
        hidden: target whose merge is hidden → the merges that answer together.
        aware: target that a defense trained or hides, task → what an attacker has who does likewise: the task's
            expert, trained; or merges of the public ingredients.
    """

    ingredients: Mapping[str, Input[State]]
    outsiders: Mapping[str, Input[State]]
    others: Mapping[str, Input[State] | None]
    released: Mapping[str, Input[State]]
    merges: tuple[MergeGroup, ...]
    unseen: Mapping[str, Input[State]]
    averages: Mapping[str, Input[State]]
    own_merges: Mapping[str, Input[State]]
    planner: MergePlanner
    hidden: Mapping[str, tuple[Input[State] | None, ...]] = field(default_factory=dict)
    aware: Mapping[tuple[str, str], tuple[Input[State] | None, ...]] = field(default_factory=dict)

    def held(self, reference: Reference, task: str) -> Input[State] | None:
        """A model that an attacker of a task holds, one encoder of the study's architecture; None for the
        pretrained one."""
        kind, name = reference
        match kind:
            case "pretrained":
                return None
            case "expert" | "ingredient":
                return self.ingredients[name or task]
            case "other_expert":
                names = [*self.ingredients]
                following = names.index(task) + 1 if task in names else 0
                return self.ingredients[names[following % len(names)]]
            case surrogates.OWN_MERGE:
                return self.own_merges[name or surrogates.OWN_METHOD]
            case surrogates.UNSEEN:
                return self.unseen[task]
            case surrogates.AVERAGED:
                return self.averages[task]
            case _:
                assert kind == OUTSIDER, kind
                return self.outsiders[task]


_UNSEEN_SEED = 1_000_003
"""Added to the study's: far from those of experts and outsiders."""


def plan_models(study: Study, stages: Stages, material: Material, seed: int) -> Models:
    """Have every encoder of a seed made.

    Raises:
        UserError: a file that the study names cannot be read.
    """
    planner = _ModelPlanner(study, stages, material, seed)
    ingredients = {task: planner.expert(task) for task in study.with_expert}
    ingredients |= {name: planner.given(name, file) for name, file in study.ingredients.items()}
    outsiders, own_task, own_head = planner.outsiders()
    tasks = {task: material.tasks[task] for task in study.with_expert}
    heads = {task: material.heads[task] for task in study.with_expert}
    if OUTSIDER in study.merged_names:
        ingredients[OUTSIDER] = next(iter(outsiders.values()))
        tasks, heads = tasks | own_task, heads | own_head
    calibration = CalibrationData(split=study.calibration, tasks=tasks, heads=heads)
    merging = merge_planner(study, stages, material.backbone, ingredients, calibration, seed)
    return Models(
        ingredients,
        outsiders,
        {task: planner.other(task) for task in material.others},
        {spec.label: planner.given(spec.label, spec.encoder) for spec in study.targets if spec.encoder},
        tuple(plan_merges(study, merging)),
        planner.unseen(),
        planner.averages(),
        plan_own_merges(study, merging),
        merging,
    )


@dataclass(frozen=True)
class _ModelPlanner:
    """Has the models of one seed made; they share what they are made from."""

    study: Study
    stages: Stages
    material: Material
    seed: int

    def given(self, name: str, file: str) -> Input[State]:
        """A model made elsewhere."""
        from mergerisk.models.sources.experts import expert_identity

        backbone, identity = self.material.backbone, expert_identity(file)
        return self.stages.add(GivenModel(label=name, backbone=backbone, identity=identity, file=file))

    def expert(self, task: str) -> Input[State]:
        """A task's own expert."""
        file = self.study.experts.files.get(task)
        if file is not None:
            return self.given(task, file)
        material = self.material
        return self._fine_tuned(task, material.tasks[task], Carried(material.backbone, material.heads[task]), {})

    def outsiders(self) -> tuple[dict[str, Input[State]], dict[str, Input[Task]], dict[str, Input[Head]]]:
        """Task → the outsider that attacks it, and what a merge that reads images may read of the outsider's own
        task, if it has one."""
        study, material = self.study, self.material
        if OUTSIDER not in study.held and study.outsider is None:
            return {}, {}, {}
        outsider = study.outsider or Outsider()
        if outsider.file is not None:
            return dict.fromkeys(material.tasks, self.given(OUTSIDER, outsider.file)), {}, {}
        changes, who = outsider.fine_tune, "outsider on "
        if outsider.task is None:
            return (
                {
                    name: self._fine_tuned(
                        name,
                        task,
                        Carried(material.backbone, material.heads[name]),
                        changes,
                        who,
                        outsider.seed,
                        outsider.minority,
                    )
                    for name, task in material.tasks.items()
                },
                {},
                {},
            )
        source = outsider.task.source
        task = self.stages.task(source)
        # Checkpoints and files bring heads for the attacked tasks only.
        head = (
            plan_probe(study, self.stages, material.backbone, source.name, task)
            if study.heads.source in {"checkpoint", "files"}
            else plan_head(study, self.stages, material.backbone, source, task)
        )
        carried = Carried(material.backbone, head)
        made = self._fine_tuned(source.name, task, carried, changes, who, outsider.seed, outsider.minority)
        return dict.fromkeys(material.tasks, made), {OUTSIDER: task}, {OUTSIDER: head}

    def unseen(self) -> dict[str, Input[State]]:
        """Task → a fine-tune of the backbone that nobody but one attacker has, if one attacks."""
        if UNSEEN not in self.study.held:
            return {}
        material = self.material
        return {
            name: self._fine_tuned(
                name, task, Carried(material.backbone, material.heads[name]), {}, "unseen on ", _UNSEEN_SEED
            )
            for name, task in material.tasks.items()
        }

    def averages(self) -> dict[str, Input[State]]:
        """Task → the average of checkpoints that a fine-tune on it passes, if an attacker holds one."""
        if AVERAGED not in self.study.held:
            return {}
        from mergerisk.finetuning.averaged import Collecting

        spec, material, made = self.study.averaged or Averaged(), self.material, {}
        collecting = as_parameters(Collecting(**spec.collect))
        for name, task in material.tasks.items():
            carried = Carried(material.backbone, material.heads[name])
            own = self._fine_tuned(name, task, carried, spec.fine_tune, "outsider on ", spec.seed)
            made[name] = self.stages.add(
                Average(
                    label=f"{name}, seed {spec.seed + self.seed}",
                    task=task,
                    head=carried.head,
                    backbone=carried.backbone,
                    fine_tuned=own,
                    collecting=collecting,
                    name=name,
                    seed=spec.seed + self.seed,
                    images=self.stages.sizes(task).train,
                )
            )
        return made

    def other(self, task: str) -> Input[State] | None:
        """The other architecture's encoder for a task."""
        other = self.study.other_architecture
        assert other is not None, "others exist only with it"
        if not other.fine_tuned:
            return None
        carried = self.material.others[task]
        return self._fine_tuned(
            task, self.material.tasks[task], carried, other.fine_tune, "other architecture on "
        )

    def _fine_tuned(
        self,
        name: str,
        task: Input[Task],
        carried: Carried,
        changes: Mapping[str, Any],
        who: str = "",
        seed: int = 0,
        minority: float | None = None,
    ) -> Input[State]:
        """A model fine-tuned on a task from what carries its head, with the experts' hyper-parameters but for
        ``changes``; on unbalanced classes where a half of them is to have a share."""
        seed, images = seed + self.seed, self.stages.sizes(task).train
        given: dict[str, Any] = {
            "label": f"{who}{name}, seed {seed}",
            "task": task,
            "head": carried.head,
            "backbone": carried.backbone,
            "fine_tuning": {**self.study.experts.fine_tune, **changes},
            "name": name,
            "seed": seed,
        }
        if minority is None:
            return self.stages.add(Expert(**given, images=images))
        left = round(images / (2 * (1 - minority)))  # of classes that have as many images each
        return self.stages.add(UnbalancedExpert(**given, images=left, minority=minority))
