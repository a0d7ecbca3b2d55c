"""From a plan whose artefacts exist to the study's tables of outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from mergerisk.store import Store
    from mergerisk.study.planning import Evaluation, Plan, TaskRun

UNKNOWN = -1
"""Stands for a prediction that nobody asked for."""


@dataclass(frozen=True)
class _Clean:
    """What one target says of a task's test images.

    Attributes:
        predictions: by image index; ``UNKNOWN`` for images it was not shown.
        labels: by image index, likewise.
        indices: the images it was shown.
    """

    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


def collect_clean(plan: Plan, store: Store) -> pd.DataFrame:
    """One row per task, model, seed and test image: ``label`` and ``prediction``.

    Raises:
        DamagedArtefactError: an artefact failed its checksum.
    """
    blocks = []
    for run in plan.task_runs:
        said = _clean_answers(run, store)
        for target in _target_order(plan, said):
            clean = said[target]
            names = {"task": run.task, "model": target, "seed": run.seed}
            columns = {
                "image": clean.indices,
                "label": clean.labels[clean.indices],
                "prediction": clean.predictions[clean.indices],
            }
            blocks.append((names, columns))
    return _stack(blocks)


def collect_outcomes(plan: Plan, store: Store) -> pd.DataFrame:
    """One row per image, surrogate, attack, budget, seed, target and number of steps kept; see
    :mod:`mergerisk.transfer.rates`.

    Raises:
        DamagedArtefactError: an artefact failed its checksum.
    """
    blocks = []
    clean = {(run.seed, run.task): _clean_answers(run, store) for run in plan.task_runs}
    for sweep in plan.sweeps:
        said_clean = clean[sweep.seed, sweep.task]
        # Targets × budgets × iterates × images.
        said = {
            target: predictions
            for evaluation in sweep.evaluations
            for target, predictions in _by_target(evaluation, store.get(evaluation.key).arrays["predictions"])
        }
        for position, (epsilon, key) in enumerate(zip(sweep.epsilons, sweep.crafted, strict=True)):
            crafted = store.get(key).arrays
            images = crafted["indices"]
            for target in _target_order(plan, said):
                for iterate, steps in enumerate(sweep.steps):
                    names = {
                        "task": sweep.task,
                        "attack": sweep.attack,
                        "surrogate": sweep.surrogate,
                        "target": target,
                        "epsilon": epsilon,
                        "seed": sweep.seed,
                        "steps": steps,
                    }
                    columns = {
                        "image": images,
                        "label": crafted["labels"],
                        "surrogate_clean": said_clean[sweep.surrogate].predictions[images],
                        "target_clean": said_clean[target].predictions[images],
                        "surrogate_adversarial": said[sweep.surrogate][position, iterate],
                        "target_adversarial": said[target][position, iterate],
                        "aimed_at": crafted["aimed_at"],
                        "l2": crafted["l2"][iterate],
                        "linf": crafted["linf"][iterate],
                        "zero_gradients": crafted["zero_gradients"],
                    }
                    blocks.append((names, columns))
    return _stack(blocks)


def _clean_answers(run: TaskRun, store: Store) -> dict[str, _Clean]:
    """By target."""
    found = {}
    for evaluation in run.clean:
        arrays = store.get(evaluation.key).arrays
        indices = arrays["indices"]
        labels = _placed(arrays["labels"], indices)
        for target, predictions in _by_target(evaluation, arrays["predictions"]):
            found[target] = _Clean(_placed(predictions, indices), labels, indices)
    return found


def _placed(values: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Values by image index."""
    placed = np.full(int(indices.max(initial=-1)) + 1, UNKNOWN, dtype=np.int64)
    placed[indices] = values
    return placed


def _by_target(evaluation: Evaluation, predictions: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    for target, column in evaluation.target.columns.items():
        yield target, predictions[column]


def _target_order(plan: Plan, found: Collection[str]) -> list[str]:
    """Expert and pretrained first, then the merges and the other targets in the study's order."""
    wanted = ["expert", "pretrained", *plan.study.target_labels]
    return [target for target in wanted if target in found]


def _stack(blocks: list[tuple[dict[str, Any], dict[str, NDArray[Any]]]]) -> pd.DataFrame:
    """Blocks of rows that share names, as one table; names that are text become categories."""
    sizes = [len(next(iter(columns.values()))) for _, columns in blocks]
    table: dict[str, Any] = {}
    for name in blocks[0][0]:
        values = [names[name] for names, _ in blocks]
        if isinstance(values[0], str):
            categories = list(dict.fromkeys(values))
            codes = np.repeat([categories.index(value) for value in values], sizes)
            table[name] = pd.Categorical.from_codes(codes, categories=pd.Index(categories, dtype=object))
        else:
            table[name] = np.repeat(np.asarray(values), sizes)
    for name in blocks[0][1]:
        table[name] = np.concatenate([columns[name] for _, columns in blocks])
    return pd.DataFrame(table)
