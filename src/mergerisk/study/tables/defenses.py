"""``defenses.parquet`` and ``defense_costs.parquet``: whether what stands around a model may be said to defend it,
and what it costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input
from mergerisk.study.kinds.check_defense import CheckDefense, evidence_of
from mergerisk.study.plan import Piece
from mergerisk.study.tables.declared import Column, Declared
from mergerisk.study.tables.table import RunTable
from mergerisk.study.variants.variant import SurrogateVariant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pandas as pd
    import torch

    from mergerisk.study.plan import Plan
    from mergerisk.study.stage import Stage
    from mergerisk.study.tables.gathered import Gathered
    from mergerisk.study.tables.table import Scene

CHECKS = Declared(
    "defenses",
    "defended model, seed and check, over all tasks",
    (
        Column("target", "name", "the defended model"),
        Column("seed", "number", "of the study"),
        Column("check", "name", "what must hold before it may be said to defend"),
        Column("images", "number", "looked at: the model names them rightly when clean"),
        Column("passed", "number", "1 if it holds, 0 if not"),
        Column("figure", "number", "what was looked at"),
        Column("limit", "number", "what it is held against"),
        Column("says", "reason", "what the figure is, in words; why there is none"),
    ),
)
COSTS = Declared(
    "defense_costs",
    "defended model and seed, over all tasks",
    (
        Column("target", "name", "the defended model"),
        Column("undefended", "name", "the same without the defense"),
        Column("seed", "number", "of the study"),
        Column("passes", "number", "forward passes for one answer"),
        Column("seconds", "number", "that an answer took, per image"),
        Column("undefended_seconds", "number", "that one of the undefended model took, per image"),
        Column("bytes", "number", "of weights"),
        Column("undefended_bytes", "number", "of the undefended model's weights"),
        Column("training", "number", "images passed to the weights and back, to make it of the undefended model"),
        Column("gradient", "number", "images passed to the pixels and back, likewise"),
    ),
)


class ChecksTable(RunTable):
    """Every check of every defended model, with its figure."""

    declared: ClassVar[Declared] = CHECKS

    def plan(self, scene: Scene) -> Iterator[Piece]:
        """A stage per defended model."""
        yield from _pieces(scene)

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """One row per defended model, seed and check."""
        import pandas as pd

        from mergerisk.defenses import check, pooled

        rows = []
        for (target, _, seed), several in _by_model(pieces).items():
            found = pooled([evidence_of(gathered.store.get(piece.made.key)) for piece in several])
            for one in check(found):
                passed = float("nan") if one.passed is None else float(one.passed)
                rows.append((target, seed, one.name, found.images, passed, one.figure, one.limit, one.means))
        return pd.DataFrame(rows, columns=[column.name for column in CHECKS.columns])


class CostsTable(RunTable):
    """What every defended model costs."""

    declared: ClassVar[Declared] = COSTS

    def plan(self, scene: Scene) -> Iterator[Piece]:
        """The stages that defended models are checked in."""
        yield from _pieces(scene)

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """One row per defended model and seed; seconds are means over the tasks."""
        import numpy as np
        import pandas as pd

        rows = []
        for (target, of, seed), several in _by_model(pieces).items():
            stages = [gathered.plan.stages[piece.made.key] for piece in several]
            kept = [gathered.store.get(piece.made.key).arrays for piece in several]
            seconds = np.mean([arrays["seconds"] for arrays in kept], axis=0)
            sizes = np.max([arrays["bytes"] for arrays in kept], axis=0)
            made = _made_for(gathered.plan, stages)
            passes = max(stage.target.passes for stage in stages if isinstance(stage, CheckDefense))
            rows.append((target, of, seed, passes, *seconds, *sizes, made["training"], made["gradient"]))
        return pd.DataFrame(rows, columns=[column.name for column in COSTS.columns])


def _by_model(pieces: Iterable[Piece]) -> dict[tuple[Any, ...], list[Piece]]:
    """Tasks together."""
    found: dict[tuple[Any, ...], list[Piece]] = {}
    for piece in pieces:
        names = piece.names
        found.setdefault((names["target"], names["undefended"], names["seed"]), []).append(piece)
    return found


def _made_for(plan: Plan, stages: Iterable[Stage]) -> Mapping[str, int]:
    """The work that defended models rest on, and undefended ones do not."""
    from mergerisk.study.stage import image_counts

    own: set[str] = set()
    for stage in stages:
        assert isinstance(stage, CheckDefense)
        target, undefended = (variant.described.inputs.values() for variant in (stage.target, stage.undefended))
        own |= _behind(plan, target) - _behind(plan, undefended)
    return image_counts(plan.stages[key] for key in own)


def _behind(plan: Plan, keys: Iterable[str]) -> set[str]:
    """Keys of stages, and of all that they need."""
    found: set[str] = set()
    left = [*keys]
    while left:
        key = left.pop()
        if key not in found:
            found.add(key)
            left += plan.stages[key].inputs.values()
    return found


def _pieces(scene: Scene) -> Iterator[Piece]:
    """One piece per defended model of a task."""
    models = {label: target.alone(label) for target in scene.targets for label in target.columns}
    for label, of in scene.study.defended.items():
        target, undefended = models[label], models[of]
        assert isinstance(target, SurrogateVariant), "black boxes are not defended"
        assert isinstance(undefended, SurrogateVariant), "likewise"
        made = _checked(scene, label, target, undefended)
        yield Piece({"task": scene.name, "target": label, "undefended": of, "seed": scene.seed}, made)


def _checked(
    scene: Scene, label: str, target: SurrogateVariant, undefended: SurrogateVariant
) -> Input[torch.Tensor]:
    """The stage that tries the checks on a defended model, with what the study crafted elsewhere as transferred
    images."""
    checks, budgets = scene.study.checks, scene.study.budgets
    place = budgets.epsilon.index(scene.epsilon)
    crafted = {
        f"{sweep.attack} on {sweep.surrogate}": sweep.crafted[place]
        for sweep in scene.sweeps
        if sweep.surrogate != label and any(label in shown.target.columns for shown in sweep.evaluations)
    }
    return scene.add(
        CheckDefense(
            label=f"{label} on {scene.name}, seed {scene.seed}",
            task=scene.task,
            target=target,
            known=target.known(scene.seed),
            undefended=undefended,
            transferred={name: Input(key) for name, key in crafted.items()},
            epsilon=scene.epsilon,
            norm=budgets.norm,
            images=min(checks.images, scene.study.images_per_task),
            steps=checks.steps,
            restarts=checks.restarts,
            queries=checks.queries,
            seed=scene.seed,
            checked=min(checks.images, scene.attacked),
            gradients=_gradients(scene, checks.steps, checks.restarts),
        )
    )


def _gradients(scene: Scene, steps: int, restarts: int) -> int:
    """Of the white box, per image: of its starts, and of budgets that double up to one that holds the image."""
    largest = 1.0 if scene.study.budgets.norm == "linf" else math.sqrt(3 * 224 * 224)  # about: no image is read
    budgets = 1 + max(0, math.ceil(math.log2(largest / scene.epsilon)))
    return steps * (restarts + budgets)
