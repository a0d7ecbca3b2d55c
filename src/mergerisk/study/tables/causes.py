"""``causes.parquet`` and ``pair_causes.parquet``: what may explain transfer, of surrogates and targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.study.asking import Asking
from mergerisk.study.kinds.ask import Ask
from mergerisk.study.kinds.compare import Compare
from mergerisk.study.kinds.compare_models import CompareModels
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.kinds.merge_changed import MergeChanged
from mergerisk.study.kinds.on_path import OnPath
from mergerisk.study.plan import Piece
from mergerisk.study.tables.declared import Column, Declared
from mergerisk.study.tables.table import RunTable
from mergerisk.study.variants.encoders import EncoderVariant
from mergerisk.study.variants.variant import SurrogateVariant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pandas as pd
    import torch

    from mergerisk.causes import Cause, Probe, ProbingCause
    from mergerisk.store import Artefact
    from mergerisk.study.keyed import Input
    from mergerisk.study.tables.gathered import Gathered
    from mergerisk.study.tables.table import Scene
    from mergerisk.study.variants.variant import TargetVariant

_PORTION = 256
"""Images that a model is asked about in one stage: what bounds memory, whatever the number of images."""

NO_MERGE = "the target is no merge, or the surrogate of another architecture"

_PAIR = (
    Column("task", "name", "the task"),
    Column("surrogate", "name", "whom images are crafted on"),
    Column("target", "name", "whom they are shown to"),
    Column("seed", "number", "of the study"),
)


@dataclass(frozen=True)
class CausesTable(RunTable):
    """One row per attacked image, surrogate and target, a column per diagnostic that has a value per image.

    Attributes:
        causes: the diagnostics.
    """

    causes: tuple[Cause, ...]

    @property
    def declared(self) -> Declared:
        """Per column of every diagnostic its value and, beside it, why there is none."""
        measured = [
            column
            for cause in self.causes
            for found in cause.columns
            for column in (
                Column(found.name, "number", f"{found.unit}; a large one: {found.reading}"),
                Column(f"{found.name}_missing", "reason", "why there is no value"),
            )
        ]
        image = Column("image", "number", "place in the test split")
        return Declared("causes", "attacked image, surrogate and target", (*_PAIR, image, *measured))

    def plan(self, scene: Scene) -> Iterator[Piece]:
        """A stage per surrogate, target and diagnostic of images."""
        yield from _pieces(scene, self.causes)

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """One row per attacked image, surrogate and target."""
        import numpy as np

        from mergerisk.study.tables.blocks import stack

        wanted = [column.name for cause in self.causes for column in cause.columns]
        blocks: dict[tuple[object, ...], tuple[dict[str, Any], dict[str, Any]]] = {}
        for piece in pieces:
            names = {name: value for name, value in piece.names.items() if name != "cause"}
            kept = gathered.store.get(piece.made.key)
            _, columns = blocks.setdefault(tuple(names.values()), (names, {"image": kept.arrays["rows"]}))
            for name in wanted:
                if name in kept.arrays:
                    columns[name] = kept.arrays[name]
                    columns[f"{name}_missing"] = _reasons(kept, name)
        for _, columns in blocks.values():
            for name in wanted:
                columns.setdefault(name, np.full(len(columns["image"]), np.nan))
                columns.setdefault(f"{name}_missing", np.full(len(columns["image"]), NO_MERGE, dtype=object))
        return stack([*blocks.values()], [column.name for column in self.declared.columns])


@dataclass(frozen=True)
class PairCausesTable(RunTable):
    """One row per surrogate, target, measure and part of the models, of diagnostics that have a value per pair.

    Attributes:
        causes: the diagnostics.
    """

    causes: tuple[Cause, ...]

    @property
    def declared(self) -> Declared:
        """Measures below each other, since diagnostics have parts of their own."""
        measured = (
            Column("cause", "name", "the diagnostic"),
            Column("measure", "name", "which of its columns"),
            Column("part", "name", "block, tensor or path that the value is of; all: of the whole"),
            Column("value", "number", "in the measure's own unit"),
            Column("missing", "reason", "why there is no value"),
        )
        return Declared(
            "pair_causes",
            "surrogate, target, measure and part of the models",
            (*_PAIR, *measured),
            may_be_empty=True,
        )

    def plan(self, scene: Scene) -> Iterator[Piece]:
        """A stage per surrogate, target and diagnostic of whole models."""
        yield from _pieces(scene, self.causes)

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """One row per surrogate, target, measure and part of the models."""
        import numpy as np

        from mergerisk.study.tables.blocks import stack

        blocks = []
        for piece in pieces:
            kept = gathered.store.get(piece.made.key)
            for name, values in kept.arrays.items():
                if not name.endswith("/missing"):
                    parts = np.array(kept.info["rows"], dtype=object)
                    columns = {"part": parts, "value": values, "missing": _reasons(kept, name)}
                    blocks.append(({**piece.names, "measure": name}, columns))
        return stack(blocks, [column.name for column in self.declared.columns])


def _reasons(kept: Artefact, name: str) -> Any:
    """Why values are missing, a text per value; empty where one is there."""
    import numpy as np

    reasons = np.array(["", *kept.info["reasons"]], dtype=object)
    return reasons[kept.arrays[f"{name}/missing"]]


def _pieces(scene: Scene, causes: tuple[Cause, ...]) -> Iterator[Piece]:
    """One piece per pair of surrogate and target of a task, and per diagnostic that can say something of it."""
    from mergerisk.causes import ProbingCause

    for surrogate, holder, target, attacked in scene.pairs():
        if target in scene.study.references:  # nobody asks what explains them
            continue
        names: dict[str, str | int | float] = {"task": scene.name, "surrogate": surrogate, "target": target}
        names["seed"] = scene.seed
        for cause in causes:
            made = (
                _compared(scene, holder, attacked, cause)
                if isinstance(cause, ProbingCause)
                else _models_compared(scene, holder, attacked, cause)
            )
            if made is not None:
                yield Piece({**names, "cause": cause.name}, made)


def _compared(
    scene: Scene, surrogate: SurrogateVariant, target: TargetVariant, cause: ProbingCause
) -> Input[torch.Tensor]:
    """The stage that compares what the two models of a pair answered."""
    asked = target if isinstance(target, SurrogateVariant) else None  # what only answers is not looked into
    return scene.add(
        Compare(
            label=f"{cause.name} of {surrogate.labels} and {target.labels} on {scene.name}, seed {scene.seed}",
            task=scene.task,
            surrogate=surrogate,
            target=target,
            cause=repr(cause),
            asking=_asking(scene),
            of_surrogate={repr(probe): _asked(scene, surrogate, cause, probe) for probe in cause.of_surrogate()},
            of_target={}
            if asked is None
            else {repr(p): _asked(scene, asked, cause, p) for p in cause.of_target()},
            diagnostic=cause,
            shown=scene.attacked,
            plugins=_made_by(cause),
        )
    )


def _asked(scene: Scene, model: SurrogateVariant, cause: Cause, probe: Probe) -> tuple[Input[torch.Tensor], ...]:
    """One model's answers to one probe, in portions of the images."""
    whole = _asking(scene)
    # Of an installed diagnostic, questions of its own are answered by its code, and ours by ours.
    own = not type(probe).__module__.startswith(f"{_OURS}.")
    plugins_found = tuple(sorted({*probe.made_by, *(_made_by(cause) if own else ())}))
    asking = Asking(
        images=whole.images,
        epsilon=whole.epsilon if "epsilon" in probe.depends else None,
        norm=whole.norm if "norm" in probe.depends else None,
        seed=whole.seed if "seed" in probe.depends else None,
    )
    return tuple(
        scene.add(
            Ask(
                label=f"{type(probe).__name__} of {model.labels} on {scene.name}, from image {first}",
                task=scene.task,
                model=model,
                question=repr(probe),
                asking=asking,
                first=first,
                last=min(first + _PORTION, scene.attacked),
                probe=probe,
                plugins=plugins_found,
            )
        )
        for first in range(0, scene.attacked, _PORTION)
    )


def _made_by(cause: Cause) -> tuple[str, ...]:
    """Name and version of the installed packages whose code compares."""
    from mergerisk.causes import CAUSES
    from mergerisk.registry import plugins

    return tuple(sorted({*plugins(CAUSES.check(CAUSES.name_of(type(cause)))), *cause.made_by}))


_OURS = __name__.partition(".")[0]


def _models_compared(
    scene: Scene, surrogate: SurrogateVariant, target: TargetVariant, cause: Cause
) -> Input[torch.Tensor] | None:
    """Of a merge and an ingredient of its own architecture; of other pairs there is nothing to compare."""
    from mergerisk.causes import WeightCause

    if not isinstance(target, EncoderVariant) or not isinstance(surrogate, EncoderVariant):
        return None
    merge, at = None if target.encoder is None else scene.stages.of(target.encoder), 1.0
    if isinstance(merge, OnPath):
        at, merge = merge.at, scene.stages.of(merge.merge)
    if not isinstance(merge, Merge) or surrogate.backbone != target.backbone:
        return None
    alone, needs = "surrogate" not in cause.needs, cause.needs
    return scene.add(
        CompareModels(
            label=f"{cause.name} of {'' if alone else f'{surrogate.labels} and '}{target.labels} on {scene.name}, "
            f"seed {scene.seed}",
            task=scene.task if "images" in needs else None,
            surrogate=None if alone else surrogate,
            target=target,
            backbone=target.backbone,
            ingredients=merge.ingredients if "experts" in needs or isinstance(cause, WeightCause) else {},
            coefficients=_coefficients(merge, at) if "coefficients" in needs else None,
            changed=merge.changed if isinstance(merge, MergeChanged) else None,
            cause=repr(cause),
            asking=_asking(scene),
            diagnostic=cause,
            shown=scene.attacked if "images" in needs else 0,
            plugins=_made_by(cause),
        )
    )


def _coefficients(merge: Merge, at: float) -> Mapping[str, float] | None:
    """λ by ingredient, of a merge or of a point between the base and it."""
    from mergerisk.merging import create

    found = create(merge.method, **merge.parameters).mixing(len(merge.ingredients))
    return (
        None if found is None else {name: at * value for name, value in zip(merge.ingredients, found, strict=True)}
    )


def _asking(scene: Scene) -> Asking:
    """About the attacked images, within the middle budget."""
    study = scene.study
    return Asking(images=study.images_per_task, epsilon=scene.epsilon, norm=study.budgets.norm, seed=scene.seed)
