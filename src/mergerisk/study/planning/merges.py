"""The merges of one seed, and their corrections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.merging.catalogue import CORRECTIONS, METHODS, split_name
from mergerisk.models.sources.loading import has_batch_norm
from mergerisk.registry import plugins
from mergerisk.study.kinds.correct import Correct
from mergerisk.study.kinds.merge import Merge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk.merging.material import Tensors
    from mergerisk.models import State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.calibrating import CalibrationData
    from mergerisk.study.fields.named import MethodSpec
    from mergerisk.study.keyed import Input
    from mergerisk.study.schema import Study
    from mergerisk.study.stages import Stages


@dataclass(frozen=True)
class MergeGroup:
    """Merges that share an encoder.

    Attributes:
        encoder: its state.
        inside: the correction inside it, if there is one.
        labels: merge → the correction behind it, if there is one.
    """

    encoder: Input[State]
    inside: Input[Tensors] | None
    labels: Mapping[str, Input[Tensors] | None]


def plan_merges(
    study: Study,
    stages: Stages,
    backbone: Backbone,
    ingredients: Mapping[str, Input[State]],
    calibration: CalibrationData,
    seed: int,
) -> Iterator[MergeGroup]:
    """Have every merge and correction made."""
    planner = _MergePlanner(
        stages,
        backbone,
        {name: ingredients[name] for name in study.merged_names},
        calibration,
        seed,
        has_batch_norm(study.backbone, image_size=study.image_size),
    )
    groups: dict[tuple[Input[State], Input[Tensors] | None], dict[str, Input[Tensors] | None]] = {}
    for spec in study.merging:
        method, correction = split_name(spec.name)
        merge = planner.merge(method, {name: v for name, v in spec.parameters.items() if name != correction})
        inside = adapters = None
        if correction is not None:
            adapters = planner.correct(spec, correction, merge)
            if CORRECTIONS.load(correction).changes_encoder:
                inside, adapters = adapters, None
        groups.setdefault((merge, inside), {})[spec.label] = adapters
    for (merge, inside), labels in groups.items():
        yield MergeGroup(merge, inside, labels)


@dataclass(frozen=True)
class _MergePlanner:
    """Has merges of the same ingredients made."""

    stages: Stages
    backbone: Backbone
    ingredients: Mapping[str, Input[State]]
    calibration: CalibrationData
    seed: int
    batch_norm: bool

    def merge(self, method: str, parameters: Mapping[str, Any]) -> Input[State]:
        implementation = METHODS.create(method, parameters)
        estimated = self.batch_norm and not implementation.encoder_per_task
        reads = implementation.needs_calibration or estimated
        images = dict(implementation.cost(self._pools()))
        if estimated:
            images["forward"] = images.get("forward", 0) + sum(self._pools())
        return self.stages.add(
            Merge(
                label=f"{method}, seed {self.seed}",
                plugins=plugins(METHODS.check(method)),
                backbone=self.backbone,
                method=method,
                parameters=parameters,
                ingredients=self.ingredients,
                calibration=self.calibration if reads else None,
                seed=self.seed if reads or implementation.uses_seed else None,
                images=images,
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

    def _pools(self) -> list[int]:
        return self.stages.pools(self.calibration.tasks.values(), self.calibration.split)
