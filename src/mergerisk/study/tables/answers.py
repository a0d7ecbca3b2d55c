"""What targets said, as stages keep it, by target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from mergerisk.store import Store
    from mergerisk.study.plan import Evaluation, Plan, TaskRun

UNKNOWN = -1
"""Stands for a prediction that nobody asked for."""


@dataclass(frozen=True)
class CleanAnswers:
    """What one target says of a task's test images.

    Attributes:
        predictions: by image index; ``UNKNOWN`` for images it was not shown.
        labels: by image index, likewise.
        indices: the images it was shown.
    """

    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


def clean_answers(run: TaskRun, store: Store) -> dict[str, CleanAnswers]:
    """By target."""
    found = {}
    for evaluation in run.clean:
        arrays = store.get(evaluation.key).arrays
        indices = arrays["indices"]
        labels = _placed(arrays["labels"], indices)
        for target, predictions in by_target(evaluation, arrays["predictions"]):
            found[target] = CleanAnswers(_placed(predictions, indices), labels, indices)
    return found


def _placed(values: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Values by image index."""
    placed = np.full(int(indices.max(initial=-1)) + 1, UNKNOWN, dtype=np.int64)
    placed[indices] = values
    return placed


def by_target(evaluation: Evaluation, predictions: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Target → its classes of an evaluation's predictions, whose first dimension is targets' columns."""
    for target, column in evaluation.target.columns.items():
        yield target, predictions[column]


def target_order(plan: Plan, found: Collection[str]) -> list[str]:
    """What merges are held against first, then the merges and the other targets in the study's order."""
    wanted = ["expert", "pretrained", *plan.study.references, *plan.study.target_labels]
    return [target for target in wanted if target in found]
