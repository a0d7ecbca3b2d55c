"""``clean.parquet``: what every model says of images that were not attacked."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.tables.answers import clean_answers, target_order
from mergerisk.study.tables.declared import Column, Declared
from mergerisk.study.tables.table import RunTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from mergerisk.study.plan import Piece
    from mergerisk.study.tables.gathered import Gathered

CLEAN = Declared(
    "clean",
    "test image and model",
    (
        Column("task", "name", "the task"),
        Column("model", "name", "who is asked"),
        Column("seed", "number", "of the study"),
        Column("image", "number", "place in the test split"),
        Column("label", "number", "true class"),
        Column("prediction", "number", "class that the model names; -2 where it rejects the image"),
    ),
)


class CleanTable(RunTable):
    """One row per task, model, seed and test image; black boxes are asked of attacked images only."""

    declared: ClassVar[Declared] = CLEAN

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """Predictions and labels, one row per task, model, seed and image."""
        from mergerisk.study.tables.blocks import stack

        del pieces
        blocks = []
        for run in gathered.plan.task_runs:
            said = clean_answers(run, gathered.store)
            for target in target_order(gathered.plan, said):
                clean = said[target]
                names = {"task": run.task, "model": target, "seed": run.seed}
                columns = {
                    "image": clean.indices,
                    "label": clean.labels[clean.indices],
                    "prediction": clean.predictions[clean.indices],
                }
                blocks.append((names, columns))
        return stack(blocks, [column.name for column in CLEAN.columns])
