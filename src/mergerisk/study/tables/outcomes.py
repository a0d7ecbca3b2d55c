"""``outcomes.parquet`` and ``outcomes_by_step.parquet``: what every target says of every adversarial image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.tables.declared import Column, Declared
from mergerisk.study.tables.table import RunTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from mergerisk.study.plan import Piece
    from mergerisk.study.tables.gathered import Gathered

OUTCOMES = Declared(
    "outcomes",
    "image, surrogate, attack, budget, seed and target",
    (
        Column("task", "name", "the task"),
        Column("attack", "name", "the attack"),
        Column("surrogate", "name", "whom the image was crafted on"),
        Column("target", "name", "whom it was shown to"),
        Column("epsilon", "number", "the budget, of pixels in [0, 1]"),
        Column("seed", "number", "of the study"),
        Column("steps", "number", "that the attack had taken"),
        Column("image", "number", "place in the test split"),
        Column("label", "number", "true class"),
        Column("surrogate_clean", "number", "class that the surrogate names without the attack, likewise"),
        Column(
            "target_clean",
            "number",
            "class that the target names without the attack; -2 where it rejects the image",
        ),
        Column("surrogate_adversarial", "number", "class that the surrogate names under attack, likewise"),
        Column("target_adversarial", "number", "class that the target names under attack, likewise"),
        Column("aimed_at", "number", "class that the attack wanted; -1 where it was not targeted"),
        Column("l2", "number", "length of the change, of pixels in [0, 1]"),
        Column("linf", "number", "largest change of a pixel, likewise"),
        Column("zero_gradients", "number", "steps in which the gradient was exactly zero"),
    ),
)
BY_STEP = replace(
    OUTCOMES, name="outcomes_by_step", one_row_per=f"{OUTCOMES.one_row_per}, and iterate kept", may_be_empty=True
)


class OutcomesTable(RunTable):
    """The last iterate of every attack; see :mod:`mergerisk.transfer.rates`."""

    declared: ClassVar[Declared] = OUTCOMES

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """The rows of last iterates."""
        del pieces
        return gathered.iterates[gathered.final].reset_index(drop=True)


class ByStepTable(RunTable):
    """Every iterate that was kept, of the attacks of which one was kept on the way."""

    declared: ClassVar[Declared] = BY_STEP

    def collect(self, gathered: Gathered, pieces: Iterable[Piece]) -> pd.DataFrame:
        """All iterates of the attacks of which some are not the last."""
        del pieces
        collected = gathered.iterates
        kept = collected["attack"].isin(collected.loc[~gathered.final, "attack"].unique())
        return collected[kept].reset_index(drop=True)
