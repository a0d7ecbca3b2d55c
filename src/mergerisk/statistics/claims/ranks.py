"""Claims on the order of methods, one block per task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import model_validator

from mergerisk.statistics.cell_means import Design, make_design
from mergerisk.statistics.claims.claim import Claim
from mergerisk.statistics.claims.testing import depends_on

if TYPE_CHECKING:
    import pandas as pd


class RankedClaim(Claim):
    """Claims on the order of methods, ranked task by task."""

    @model_validator(mode="before")
    @classmethod
    def _by_task(cls, given: object) -> object:
        if isinstance(given, dict) and "block_by" in given:
            raise ValueError(
                "block_by: methods are ranked once per task, which is what is independent; leave it out"
            )
        return given


def task_blocks(chosen: pd.DataFrame, targets: tuple[str, ...], column: str) -> tuple[Design, int]:
    """One block per task: of every target the mean over those attacks, surrogates, budgets and seeds that every
    target of the task has; and how many settings there are to choose among."""
    known = chosen[chosen[column].notna() & chosen["target"].isin(targets)]
    if not len(known):
        known = chosen[chosen["target"].isin(targets)]
    cell = depends_on(column, ["task", "attack", "surrogate", "epsilon"])
    cell += [] if column == "clean_accuracy" else ["seed"]
    here = known.groupby(cell, dropna=False, observed=True)["target"].transform("nunique")
    of_task = known.groupby("task", observed=True)["target"].transform("nunique")
    kept = known[here == of_task]
    places = {name: place for place, name in enumerate(targets)}
    position = np.array([places[name] for name in kept["target"]], dtype=np.intp)
    return make_design(kept, ["task"], position, targets), int(chosen["target"].isin(targets).sum())
