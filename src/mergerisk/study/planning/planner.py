"""Composes a study's stages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mergerisk.study.kinds.clean import Clean
from mergerisk.study.kinds.craft import Craft
from mergerisk.study.kinds.evaluate import Evaluate
from mergerisk.study.plan import Evaluation, Plan, Sweep, TaskRun
from mergerisk.study.planning.attacks import plan_attack
from mergerisk.study.planning.material import plan_material
from mergerisk.study.planning.models import plan_models
from mergerisk.study.planning.targets import OneTask
from mergerisk.study.planning.training import with_trained
from mergerisk.study.stages import Stages
from mergerisk.study.tables.catalogue import further_tables
from mergerisk.study.tables.table import Scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch

    from mergerisk.study.keyed import Input
    from mergerisk.study.plan import Piece
    from mergerisk.study.planning.attacks import PlannedAttack
    from mergerisk.study.planning.material import Material
    from mergerisk.study.schema import Study
    from mergerisk.study.variants.variant import SurrogateVariant, TargetVariant
    from mergerisk.tasks.outline import Outline
    from mergerisk.tasks.source import TaskSource


def make_plan(
    study: Study,
    notes: tuple[str, ...] = (),
    outlines: Mapping[TaskSource, Outline] | None = None,
    *,
    further: bool = True,
) -> Plan:
    """The plan of a resolved study.

    Args:
        study: what is planned.
        notes: what one must know to read its results; see :mod:`mergerisk.study.notes`.
        outlines: of its tasks, where they are known, to count images by; of others they are looked up, or
            assumed of what is not downloaded yet.
        further: with the stages of the tables that the study asks for besides those of every run.

    Raises:
        UserError: a file that the study names cannot be read.
    """
    stages = Stages(outlines or {})
    material = plan_material(study, stages)
    planner = _Planner(study, stages, material)
    tables = [*further_tables(study)] if further else []
    pieces: dict[str, list[Piece]] = {kind.table.declared.name: [] for kind in tables}
    task_runs: list[TaskRun] = []
    sweeps: list[Sweep] = []
    for seed in study.seeds:
        models = with_trained(study, stages, material, plan_models(study, stages, material, seed), seed)
        for task in material.tasks:
            models_of_task = OneTask(study, material, models, task, seed)
            targets = [*models_of_task.targets()]
            surrogates = {spec.label: models_of_task.surrogate(spec) for spec in study.surrogates}
            knows = {spec.label: spec.knows for spec in study.surrogates}
            known = {label for target in targets for label in target.columns}
            own = {label: surrogate for label, surrogate in surrogates.items() if label not in known}
            clean = tuple(Evaluation(target, planner.clean(target)) for target in (*targets, *own.values()))
            task_runs.append(TaskRun(seed, task, material.attacked[task].key, clean))
            before = len(sweeps)
            for label, surrogate in surrogates.items():
                # Who knows one target's defense attacks that one.
                against = [target for target in targets if knows[label] in {None, *target.columns}]
                # Others' own surrogates are shown nothing: no figure asks for it.
                shown = (*against, surrogate) if label in own else against
                sweeps += planner.sweeps(seed, label, surrogate, shown)
            here = tuple(sweeps[before:])
            scene = Scene(study, seed, task, material.attacked[task], tuple(targets), surrogates, here, stages)
            for kind in tables:
                pieces[kind.table.declared.name] += kind.table.plan(replace(scene, plugins=kind.plugins))
    found = {name: tuple(rows) for name, rows in pieces.items()}
    return Plan(study, stages.ordered(), tuple(task_runs), tuple(sweeps), notes, found)


class _Planner:
    """Has targets asked, and images crafted."""

    def __init__(self, study: Study, stages: Stages, material: Material) -> None:
        self._study = study
        self._stages = stages
        self._tasks = material.attacked
        self._attacks = [plan_attack(spec, study.budgets.after) for spec in study.attacks]

    def clean(self, target: TargetVariant) -> str:
        """What a target says of images that were not attacked."""
        task = self._tasks[target.task]
        every = target.answers_by == "forward"  # else each image is a query: no more than those attacked
        stage = Clean(
            label=f"{target.task} on {target.labels}",
            task=task,
            target=target,
            images=None if every else self._study.images_per_task,
            shown=self._stages.sizes(task).test if every else self._attacked(target.task),
        )
        return self._stages.add(stage).key

    def sweeps(
        self, seed: int, label: str, surrogate: SurrogateVariant, shown: Iterable[TargetVariant]
    ) -> Iterator[Sweep]:
        """Every attack on a surrogate's task, at every budget."""
        task, epsilons = surrogate.task, self._study.budgets.epsilon
        for attack in self._attacks:
            name = f"{attack.label} on {task} from {label}"
            crafted = tuple(self._craft(name, seed, attack, surrogate, epsilon) for epsilon in epsilons)
            evaluations = tuple(
                Evaluation(target, self._evaluate(name, crafted, target, len(attack.steps))) for target in shown
            )
            keys = tuple(made.key for made in crafted)
            yield Sweep(seed, task, attack.label, label, epsilons, attack.steps, keys, evaluations)

    def _craft(
        self, name: str, seed: int, attack: PlannedAttack, surrogate: SurrogateVariant, epsilon: float
    ) -> Input[torch.Tensor]:
        """The stage that crafts a task's images with one attack, on one surrogate, at one budget."""
        return self._stages.add(
            Craft(
                label=f"{name}, ε = {epsilon * 255:g}/255, seed {seed}",
                plugins=attack.plugins,
                task=self._tasks[surrogate.task],
                surrogate=surrogate,
                attack=attack.name,
                parameters=attack.parameters,
                epsilon=epsilon,
                norm=self._study.budgets.norm,
                after=attack.steps[:-1],
                images=self._study.images_per_task,
                seed=seed,
                brought=attack.brought,
                crafted=self._attacked(surrogate.task),
                gradients=attack.gradients,
            )
        )

    def _evaluate(
        self, name: str, crafted: tuple[Input[torch.Tensor], ...], target: TargetVariant, iterates: int
    ) -> str:
        """The key of the stage that shows a sweep's crafted images to one target."""
        shown = self._attacked(target.task) * len(crafted) * iterates
        stage = Evaluate(label=f"{name} against {target.labels}", target=target, crafted=crafted, shown=shown)
        return self._stages.add(stage).key

    def _attacked(self, task: str) -> int:
        """Attacked images of a task."""
        return min(self._study.images_per_task, self._stages.sizes(self._tasks[task]).test)
