"""Clean accuracy per model and task, as a table to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.formatting import MISSING, colour_bin, interval, percent, plural, with_interval
from mergerisk.report.naming import model_name
from mergerisk.report.risk import Mean, mean_over_tasks

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.report.cells import Axes


@dataclass(frozen=True)
class AccuracyCell:
    """One cell: its text, a sentence for the pointer, its colour (None: no value), its interval where shown."""

    text: str
    detail: str
    colour: int | None
    best: bool = False
    interval: str = ""


@dataclass(frozen=True)
class AccuracyRow:
    """One model: the mean over tasks, then one cell per task."""

    model: str
    reference: bool
    mean: AccuracyCell
    cells: tuple[AccuracyCell, ...]


@dataclass(frozen=True)
class AccuracyTable:
    """The heat table: of every task how many test images there are; ``low`` and ``high`` are the ends of the
    colour scale, rates in [0,1]."""

    tasks: tuple[str, ...]
    images: tuple[str, ...]
    rows: tuple[AccuracyRow, ...]
    low: float
    high: float


def mean_accuracy(accuracy: pd.DataFrame, axes: Axes) -> dict[str, Mean]:
    """Mean clean accuracy over tasks of every model, with its interval."""
    return {
        model: mean_over_tasks(accuracy[accuracy["model"] == model], "accuracy", "low", "high")
        for model in axes.targets
    }


def accuracy_table(accuracy: pd.DataFrame, axes: Axes) -> AccuracyTable:
    """The heat table: merging methods in the study's order, then the references; seeds averaged."""
    measured = _average_over_seeds(accuracy)
    known = [value.accuracy for value in measured.values() if not math.isnan(value.accuracy)]
    low = math.floor(10 * min(known)) / 10 if known else 0.0
    means = mean_accuracy(accuracy, axes)
    ranked = axes.methods if len(axes.methods) > 1 else ()

    def best(values: list[float]) -> float:
        return max((value for value in values if not math.isnan(value)), default=math.nan)

    best_mean = best([means[model].value for model in ranked])
    best_in = {
        task: best([measured[model, task].accuracy for model in ranked if (model, task) in measured])
        for task in axes.tasks
    }

    def shown(accuracy: float, detail: str, wins: bool, spread: str) -> AccuracyCell:
        return AccuracyCell(percent(accuracy, 1), detail, colour_bin(accuracy, low, 1.0), wins, spread)

    def cell(model: str, task: str) -> AccuracyCell:
        found = measured.get((model, task))
        if found is None:
            return AccuracyCell(MISSING, f"{model}, {task}: not measured", None)
        detail = (
            f"{model} on {task}\naccuracy {with_interval(found.accuracy, found.low, found.high, 1)}\n"
            f"{plural(found.images, 'test image')}"
        )
        wins = model in ranked and found.accuracy == best_in[task]
        return shown(found.accuracy, detail, wins, interval(found.low, found.high, 1))

    def mean_cell(model: str) -> AccuracyCell:
        mean = means[model]
        tasks = sum(not math.isnan(value.accuracy) for (name, _), value in measured.items() if name == model)
        detail = (
            f"{model}, mean over {plural(tasks, 'task')}\n"
            f"accuracy {with_interval(mean.value, mean.low, mean.high, 1)}"
        )
        wins = model in ranked and mean.value == best_mean
        return shown(mean.value, detail, wins, interval(mean.low, mean.high, 1))

    rows = tuple(
        AccuracyRow(
            model=model_name(model),
            reference=model not in axes.methods,
            mean=mean_cell(model),
            cells=tuple(cell(model, task) for task in axes.tasks),
        )
        for model in axes.targets
    )
    counts = [
        sorted({found.images for (_, name), found in measured.items() if name == task}) for task in axes.tasks
    ]
    images = tuple(
        "" if not found else str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"
        for found in counts
    )
    return AccuracyTable(axes.tasks, images, rows, low, 1.0)


@dataclass(frozen=True)
class _Measured:
    """Clean accuracy of one model on one task and seed, with Wilson's interval, in [0, 1]."""

    images: int
    accuracy: float
    low: float
    high: float


def _average_over_seeds(accuracy: pd.DataFrame) -> dict[tuple[str, str], _Measured]:
    """By (model, task): accuracies and interval ends averaged, image counts summed."""
    numbers = ["accuracy", "low", "high"]
    frame = accuracy[["model", "task", "images", *numbers]].astype(dict.fromkeys(numbers, float))
    how = {"images": "sum"} | dict.fromkeys(numbers, "mean")
    means = frame.groupby(["model", "task"], sort=False, observed=True).agg(how).reset_index()
    columns = (means[name].tolist() for name in means.columns)
    return {
        (model, task): _Measured(int(images), value, low, high)
        for model, task, images, value, low, high in zip(*columns, strict=True)
    }
