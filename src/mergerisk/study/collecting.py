"""From a plan whose artefacts exist to the study's tables of outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from mergerisk.store import Store
    from mergerisk.study.planning import Evaluation, Plan, TaskRun

Predictions = dict[str, "NDArray[np.int64]"]
"""Target label → predictions."""


def collect_clean(plan: Plan, store: Store) -> pd.DataFrame:
    """One row per task, model, seed and test image: ``label`` and ``prediction``.

    Raises:
        DamagedArtefactError: an artefact failed its checksum.
    """
    blocks = []
    for run in plan.task_runs:
        predictions = _clean_predictions(run, store)
        labels = _labels(run, store)
        for target in _target_order(plan, predictions):
            names = {"task": run.task, "model": target, "seed": run.seed}
            columns = {"image": np.arange(len(labels)), "label": labels, "prediction": predictions[target]}
            blocks.append((names, columns))
    return _stack(blocks)


def collect_outcomes(plan: Plan, store: Store) -> pd.DataFrame:
    """One row per image, surrogate, attack, budget, seed and target; see :mod:`mergerisk.transfer.rates`.

    Raises:
        DamagedArtefactError: an artefact failed its checksum.
    """
    blocks = []
    clean = {(run.seed, run.task): _clean_predictions(run, store) for run in plan.task_runs}
    for sweep in plan.sweeps:
        swept = _merge_predictions(sweep.evaluations, store)
        said_clean = clean[sweep.seed, sweep.task]
        for position, (epsilon, key) in enumerate(zip(sweep.epsilons, sweep.crafted, strict=True)):
            crafted = store.get(key).arrays
            images = crafted["indices"]
            for target in _target_order(plan, swept):
                names = {
                    "task": sweep.task,
                    "attack": sweep.attack,
                    "surrogate": sweep.surrogate,
                    "target": target,
                    "epsilon": epsilon,
                    "seed": sweep.seed,
                }
                columns = {
                    "image": images,
                    "label": crafted["labels"],
                    "surrogate_clean": said_clean[sweep.surrogate][images],
                    "target_clean": said_clean[target][images],
                    "surrogate_adversarial": swept[sweep.surrogate][position],
                    "target_adversarial": swept[target][position],
                    "l2": crafted["l2"],
                    "linf": crafted["linf"],
                    "zero_gradients": crafted["zero_gradients"],
                }
                blocks.append((names, columns))
    return _stack(blocks)


def _labels(run: TaskRun, store: Store) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = store.get(run.clean[0].key).arrays["labels"]
    return labels


def _clean_predictions(run: TaskRun, store: Store) -> Predictions:
    return _merge_predictions(run.clean, store)


def _merge_predictions(evaluations: Iterable[Evaluation], store: Store) -> Predictions:
    """Predictions by target; each evaluation holds those of one group's variants."""
    return {
        target: predictions
        for evaluation in evaluations
        for target, predictions in _by_target(evaluation, store.get(evaluation.key).arrays["predictions"])
    }


def _by_target(evaluation: Evaluation, predictions: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    variants = evaluation.group.variants
    for target, adapters in evaluation.group.targets.items():
        yield target, predictions[variants.index(adapters)]


def _target_order(plan: Plan, found: Predictions) -> list[str]:
    """Expert and pretrained first, then the merges in the study's order."""
    wanted = ["expert", "pretrained", *(spec.label for spec in plan.study.merging)]
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
