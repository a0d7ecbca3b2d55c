"""The merges of one seed, and their corrections."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mergerisk.merging.catalogue import CORRECTIONS, METHODS, split_name
from mergerisk.models.sources.loading import has_batch_norm
from mergerisk.registry import plugins
from mergerisk.study.changed import Changed
from mergerisk.study.fields.surrogates import OWN_MERGE, OWN_METHOD
from mergerisk.study.kinds.correct import Correct
from mergerisk.study.kinds.from_base import MergeFromBase
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.kinds.merge_changed import MergeChanged
from mergerisk.study.kinds.on_path import OnPath
from mergerisk.validation import as_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk.merging.material import Tensors
    from mergerisk.models import State
    from mergerisk.registry import Entry
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.calibrating import CalibrationData
    from mergerisk.study.fields.interventions import Intervention
    from mergerisk.study.fields.named import MethodSpec
    from mergerisk.study.keyed import Input
    from mergerisk.study.schema import Study
    from mergerisk.study.stages import Stages

T = TypeVar("T")


@dataclass(frozen=True)
class MergeGroup:
    """Merges that share an encoder.

    Attributes:
        encoder: its state; None for the pretrained one.
        inside: the correction inside it, if there is one.
        labels: merge → the correction behind it, if there is one.
        only: the one task that it is attacked on; None for every task.
    """

    encoder: Input[State] | None
    inside: Input[Tensors] | None
    labels: Mapping[str, Input[Tensors] | None]
    only: str | None = None

    def serves(self, task: str) -> bool:
        """Whether it is attacked on a task."""
        return self.only in {None, task}


def plan_merges(study: Study, planner: MergePlanner) -> Iterator[MergeGroup]:
    """Have every merge and correction made."""
    groups: dict[tuple[Any, ...], dict[str, Input[Tensors] | None]] = {}
    for spec in study.merging:
        for only, encoder, inside, behind in planner.planned(spec, study.task_names):
            groups.setdefault((only, encoder, inside), {})[spec.label] = behind
    for (only, encoder, inside), labels in groups.items():
        yield MergeGroup(encoder, inside, labels, only)


def plan_own_merges(study: Study, planner: MergePlanner) -> dict[str, Input[State]]:
    """Have the merges made that attackers make themselves; by what the study calls the method, or the merge whose
    method and hyper-parameters they are. One that the study makes too is the same merge."""
    references = {reference for spec in study.surrogates for reference in spec.references}
    wanted = [*dict.fromkeys(name or OWN_METHOD for kind, name in references if kind == OWN_MERGE)]
    return {name: planner.merge(*own_method(study, name)) for name in sorted(wanted)}


def own_method(study: Study, name: str) -> tuple[str, dict[str, Any]]:
    """The method that an attacker merges by, and its hyper-parameters.

    Args:
        study: resolved.
        name: a label of ``merging``, or a method, with its defaults.

    Raises:
        UserError: there is neither.
    """
    for spec in study.merging:
        if spec.label == name and spec.intervention is None and "+" not in spec.name:
            return spec.name, spec.parameters
    entry = METHODS.check(name)
    return entry.name, as_parameters(METHODS.create(entry.name, {}))


def _entries(method: str, parameters: Mapping[str, Any]) -> Iterator[Entry]:
    """Of a method, and of what it is wrapped around."""
    yield METHODS.check(method)
    inner = parameters.get("of")
    if isinstance(inner, dict) and "method" in inner:
        yield from _entries(inner["method"], inner)


def merge_planner(
    study: Study,
    stages: Stages,
    backbone: Backbone,
    ingredients: Mapping[str, Input[State]],
    calibration: CalibrationData,
    seed: int,
) -> MergePlanner:
    """What has merges of a seed's ingredients made."""
    return MergePlanner(
        stages,
        backbone,
        {name: ingredients[name] for name in study.merged_names},
        calibration,
        seed,
        has_batch_norm(study.backbone, image_size=study.image_size),
    )


@dataclass(frozen=True)
class MergePlanner:
    """Has merges of the same ingredients made.

    Attributes:
        base: what they were fine-tuned from; None for the pretrained encoder.
    """

    stages: Stages
    backbone: Backbone
    ingredients: Mapping[str, Input[State]]
    calibration: CalibrationData
    seed: int
    batch_norm: bool
    base: Input[State] | None = None

    def of(self, ingredients: Mapping[str, Input[State]], base: Input[State] | None = None) -> MergePlanner:
        """The same, with other models in some ingredients' places, and another base."""
        return replace(self, ingredients={**self.ingredients, **ingredients}, base=base)

    def planned(
        self, spec: MethodSpec, tasks: tuple[str, ...]
    ) -> Iterator[tuple[str | None, Input[State] | None, Input[Tensors] | None, Input[Tensors] | None]]:
        """What one entry of ``merging`` gives: the task that it is for, if it is for one; encoder; and the
        correction inside it, or behind it."""
        method, correction = split_name(spec.name)
        parameters = {name: v for name, v in spec.parameters.items() if name != correction}
        if spec.intervention is not None:
            for only, encoder in self.changed(method, parameters, spec.intervention, tasks):
                yield only, encoder, None, None
            return
        merge = self.merge(method, parameters)
        if correction is None:
            yield None, merge, None, None
            return
        made = self.correct(spec, correction, merge)
        inside = CORRECTIONS.load(correction).changes_encoder
        yield None, merge, made if inside else None, None if inside else made

    def changed(
        self, method: str, parameters: Mapping[str, Any], change: Intervention, tasks: tuple[str, ...]
    ) -> Iterator[tuple[str | None, Input[State] | None]]:
        """A merge that something is changed about: the task that it is for, if it is for one, and its encoder."""
        match change.kind:
            case "path":
                yield None, self.on_path(self.merge(method, parameters), float(change.value))
            case "ingredients":
                for task in tasks:
                    yield task, self.without(task).merge(method, parameters, f" without {task}")
            case "placebo":
                yield None, self.merge(method, parameters, " placebo", self._change("placebo", None))
            case "shuffled_blocks":
                disordered = self._change("shuffled_blocks", change.value)
                yield None, self.merge(method, parameters, f" {change.called}", disordered)

    def _change(self, what: Literal["placebo", "shuffled_blocks"], block: int | None) -> Changed:
        """One change of a merge that depends on the seed."""
        return Changed(change=what, block=block, seed=self.seed)

    def without(self, task: str) -> MergePlanner:
        """The same, of all ingredients but one."""

        def left(named: Mapping[str, T]) -> dict[str, T]:
            return {name: made for name, made in named.items() if name != task}

        read = replace(self.calibration, tasks=left(self.calibration.tasks), heads=left(self.calibration.heads))
        return replace(self, ingredients=left(self.ingredients), calibration=read)

    def merge(
        self, method: str, parameters: Mapping[str, Any], what: str = "", changed: Changed | None = None
    ) -> Input[State]:
        implementation = METHODS.create(method, parameters)
        estimated = self.batch_norm and not implementation.encoder_per_task
        reads = implementation.needs_calibration or estimated
        images = dict(implementation.cost(self._pools()))
        if estimated:
            images["forward"] = images.get("forward", 0) + sum(self._pools())
        stage: dict[str, Any] = {
            "label": f"{method}{what}, seed {self.seed}",
            "plugins": plugins(*_entries(method, parameters)),
            "backbone": self.backbone,
            "method": method,
            "parameters": parameters,
            "ingredients": self.ingredients,
            "calibration": self.calibration if reads else None,
            "seed": self.seed if reads or implementation.uses_seed else None,
            "images": images,
        }
        if self.base is not None:
            return self.stages.add(MergeFromBase(**stage, base=self.base))
        return self.stages.add(Merge(**stage) if changed is None else MergeChanged(**stage, changed=changed))

    def on_path(self, merge: Input[State], at: float) -> Input[State] | None:
        """A point between base and merge; its ends are these models themselves."""
        if at == 1:
            return merge
        if at == 0 and not self.batch_norm:
            return None
        return self.stages.add(
            OnPath(
                label=f"{self.stages.of(merge).label}, path {at:g}",
                backbone=self.backbone,
                merge=merge,
                at=at,
                calibration=self.calibration if self.batch_norm else None,
                seed=self.seed if self.batch_norm else None,
                images=self.for_batch_norm(),
            )
        )

    def correct(self, spec: MethodSpec, correction: str, merge: Input[State]) -> Input[Tensors]:
        parameters = spec.parameters[correction]
        return self.stages.add(
            Correct(
                label=f"{spec.name}, seed {self.seed}",
                plugins=plugins(CORRECTIONS.check(correction)),
                backbone=self.backbone,
                correction=correction,
                parameters=parameters,
                merge=merge,
                ingredients=self.ingredients,
                calibration=self.calibration,
                seed=self.seed,
                images=CORRECTIONS.create(correction, parameters).cost(self._pools()),
            )
        )

    def for_batch_norm(self) -> dict[str, int]:
        """Passes of the images that BatchNorm's statistics are estimated on, if the backbone has any."""
        return {"forward": sum(self._pools())} if self.batch_norm else {}

    def _pools(self) -> list[int]:
        """How many images each task has that a method may read."""
        return self.stages.pools(self.calibration.tasks.values(), self.calibration.split)
