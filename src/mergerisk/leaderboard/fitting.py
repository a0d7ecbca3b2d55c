"""Whether outcomes are those of the study that an entry says they are of."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk.errors import UserError
from mergerisk.report.formatting import budget, listing, plural
from mergerisk.study.fields.targets import ROUTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from mergerisk.study.finished import FinishedRun
    from mergerisk.study.schema import Study

_SETTING = ["task", "attack", "surrogate", "target", "epsilon", "seed"]
_CRAFTED = ["task", "attack", "surrogate", "epsilon", "seed", "image"]
"""What an adversarial image belongs to: whom it is shown to is not among it."""

_OF_CRAFTED = ["surrogate_clean", "surrogate_adversarial", "aimed_at", "l2", "linf", "zero_gradients", "label"]

_REACH, _SLACK = 1e-5, 1e-6
"""By how much a change may be larger than its budget: pixels are float32 numbers."""


def misfits(run: FinishedRun) -> Iterator[str]:
    """What of an entry's outcomes does not fit its study file, or itself: a line per fault."""
    yield from _names(run)
    yield from _settings(run)
    yield from _images(run)
    yield from _clean(run)
    yield from _crafted(run)
    yield from _norms(run)
    yield from _steps(run)
    yield from _tasks(run)


def _names(run: FinishedRun) -> Iterator[str]:
    """Tasks, attacks, budgets, seeds and models that the study does not have, or has and the outcomes lack."""
    study = run.study
    surrogates = [spec.label for spec in study.surrogates]
    wanted: Mapping[str, list[Any]] = {
        "task": [*study.task_names],
        "attack": [spec.label for spec in study.attacks],
        "surrogate": surrogates,
        "target": [*_references(study), *study.target_labels],
        "epsilon": [*study.budgets.epsilon],
        "seed": [*study.seeds],
    }
    for axis, names in wanted.items():
        found = run.outcomes[axis].unique().tolist()
        for these, where in (
            (_without(names, found), "in study.yaml and not here"),
            (_without(found, names), "here and not in study.yaml"),
        ):
            if these:
                shown = listing([budget(one) if axis == "epsilon" else str(one) for one in these])
                yield f"outcomes.parquet: {'budget' if axis == 'epsilon' else axis} {shown}: {where}"


def _references(study: Study) -> list[str]:
    return ["pretrained", *(["expert"] if study.with_expert else []), *study.references]


def _without(these: list[Any], others: list[Any]) -> list[Any]:
    def same(one: Any, other: Any) -> bool:
        numbers = isinstance(one, float) and isinstance(other, float)
        return math.isclose(one, other, rel_tol=1e-9) if numbers else bool(one == other)

    return [one for one in these if not any(same(one, other) for other in others)]


def expected(study: Study) -> Iterator[tuple[Any, ...]]:
    """Every setting that the study asks for, budgets apart: task, attack, surrogate, target and seed."""
    places = {spec.label: spec.places for spec in study.targets if spec.places}
    for task in study.task_names:
        lacking = () if task in study.with_expert else ("expert", ROUTED)
        references = [name for name in _references(study) if name not in lacking]
        answering = [name for name in study.target_labels if name not in places or task in places[name]]
        for spec in study.surrogates:
            # who knows one target's defense attacks that one
            against = [*references, *answering] if spec.knows is None else [spec.knows]
            for target in against:
                for attack in study.attacks:
                    for seed in study.seeds:
                        yield task, attack.label, spec.label, target, seed


def _settings(run: FinishedRun) -> Iterator[str]:
    """Settings that are not there at every budget."""
    names = [name for name in _SETTING if name != "epsilon"]
    budgets = run.outcomes[_SETTING].drop_duplicates().groupby(names, observed=True)["epsilon"].size()
    found = {tuple(map(_plain, key)): int(count) for key, count in budgets.items()}  # type: ignore[call-overload]
    wanted = [*expected(run.study)]
    missing = [key for key in wanted if found.get(key, 0) < len(run.study.budgets.epsilon)]
    if missing:
        task, attack, surrogate, target, seed = missing[0]
        where = f"{task}, {attack} made on {surrogate}, against {target}, seed {seed}"
        yield (
            f"outcomes.parquet: {len(missing)} of {plural(len(wanted), 'curve')} that study.yaml asks for "
            f"{'lacks' if len(missing) == 1 else 'lack'} a budget or are missing; the first: {where}"
        )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _images(run: FinishedRun) -> Iterator[str]:
    """Images that stand there twice, or not in every setting, or not as many as were to be attacked."""
    outcomes = run.outcomes
    twice = int(outcomes.duplicated([*_SETTING, "image"]).sum())
    if twice:
        yield f"outcomes.parquet: {plural(twice, 'row')} stand there twice: one per image and setting"
        return
    counts = outcomes.groupby(_SETTING, observed=True).size().reset_index(name="images")
    for task, rows in counts.groupby("task", observed=True):
        attacked = outcomes.loc[outcomes["task"] == task, "image"].nunique()
        short = rows[rows["images"] != attacked]
        if len(short):
            first = _where(short.iloc[0])
            yield (
                f"outcomes.parquet: {task}: {plural(len(short), 'setting')} of {len(rows)} lack some of the "
                f"{attacked} attacked images; the first: {first}"
            )
        tests = run.clean[run.clean["task"] == task].groupby(["model", "seed"], observed=True).size().max()
        wanted = min(run.study.images_per_task, int(tests) if tests == tests else 0)
        if attacked != wanted:
            there = plural(int(np.nan_to_num(tests)), "test image")
            yield (
                f"outcomes.parquet: {task}: {plural(attacked, 'image')} were attacked, study.yaml asks for "
                f"{run.study.images_per_task} and clean.parquet has {there}"
            )


def _clean(run: FinishedRun) -> Iterator[str]:
    """Predictions without the attack that are not those of ``clean.parquet``, and labels likewise."""
    keys = ["task", "seed", "model", "image"]
    clean = run.clean[[*keys, "label", "prediction"]]
    if clean.duplicated(keys).any():
        yield "clean.parquet: an image stands there twice for one model: one row per image and model"
        return
    known = clean.astype({"task": str, "model": str})
    if known.groupby(["task", "image"], observed=True)["label"].nunique().gt(1).any():
        yield "clean.parquet: an image has two labels"
    for side in ("surrogate", "target"):
        column = f"{side}_clean"
        said = run.outcomes[["task", "seed", side, "image", "label", column]].drop_duplicates()
        said = said.rename(columns={side: "model", "label": "said_label"}).astype({"task": str, "model": str})
        if side == "surrogate":
            if said.duplicated(keys).any():
                yield "outcomes.parquet: surrogate_clean: a surrogate names two classes of one image"
                continue
            said = said[said["model"].isin(set(known["model"]))]  # who is no target is not in clean.parquet
        both = said.merge(known, how="left", on=keys)
        unknown, wrong = both["prediction"].isna(), both[column] != both["prediction"]
        for faulty, what in (
            (unknown, "which clean.parquet lacks"),
            (~unknown & wrong, "for which clean.parquet has another class"),
            (~unknown & (both["said_label"] != both["label"]), "for which clean.parquet has another label"),
        ):
            if faulty.any():
                first = both[faulty].iloc[0]
                yield (
                    f"outcomes.parquet: {column}: {plural(int(faulty.sum()), 'image')} {what}; the first: "
                    f"{first['task']}, {first['model']}, image {first['image']}"
                )


def _crafted(run: FinishedRun) -> Iterator[str]:
    """Columns of what was crafted, and of what the surrogate says of it, that depend on whom it was shown to."""
    first = run.outcomes.groupby(_CRAFTED, observed=True, sort=False)[_OF_CRAFTED]
    differ = (first.nunique(dropna=False) > 1).any()
    for column in differ.index[differ]:
        yield f"outcomes.parquet: {column} of one adversarial image depends on whom it was shown to"
    own = run.outcomes[run.outcomes["surrogate"].astype(str) == run.outcomes["target"].astype(str)]
    if (own["surrogate_adversarial"] != own["target_adversarial"]).any():
        yield "outcomes.parquet: a model says two things of one adversarial image, as surrogate and as target"


def _norms(run: FinishedRun) -> Iterator[str]:
    """Changes that are larger than their budget."""
    norm = run.study.budgets.norm
    limit = run.outcomes["epsilon"] * (1 + _REACH) + _SLACK
    for faulty, what in (
        (~(run.outcomes[norm] <= limit), "changed more than the budget allows"),
        (~(run.outcomes["linf"] <= run.outcomes["l2"] * (1 + _REACH) + _SLACK), "have an L∞ norm above their L2"),
    ):
        if faulty.any():
            row = run.outcomes[faulty].iloc[0]
            yield (
                f"outcomes.parquet: {plural(int(faulty.sum()), 'outcome')} {what}; the first: {_where(row)}, "
                f"image {row['image']}: {255 * row[norm]:.3g}/255"
            )


def _steps(run: FinishedRun) -> Iterator[str]:
    """Attacks that took another number of steps than they are to, as far as they are installed here."""
    from mergerisk.attacks import create

    for spec in run.study.attacks:
        try:
            wanted = create(spec.name, **spec.parameters).iterations
        except UserError:
            continue  # of a package that is not here, or with a file that is not
        taken = run.outcomes.loc[run.outcomes["attack"] == spec.label, "steps"].unique().tolist()
        if taken and taken != [wanted]:
            steps = listing([*map(str, taken)])
            yield f"outcomes.parquet: {spec.label} took {steps} steps, study.yaml says {wanted}"


_KEY = re.compile("[0-9a-f]{64}")


def task_keys(run: FinishedRun) -> dict[str, str]:
    """Task → the key of its content, as far as ``run.json`` says it."""
    stages = [stage for stage in run.record["stages"] if isinstance(stage, dict) and stage.get("kind") == "task"]
    return {str(stage.get("label")): str(stage.get("key")) for stage in stages}


def _tasks(run: FinishedRun) -> Iterator[str]:
    """Tasks of which it is not said what they hold."""
    keys = task_keys(run)
    for task in run.study.task_names:
        if not _KEY.fullmatch(keys.get(task, "")):
            yield f"run.json: stages: names no key of the task {task}: nobody can tell which images were attacked"


def _where(row: pd.Series[Any]) -> str:
    return (
        f"{row['task']}, {row['attack']} made on {row['surrogate']}, against {row['target']} at "
        f"{budget(float(row['epsilon']))}"
    )
