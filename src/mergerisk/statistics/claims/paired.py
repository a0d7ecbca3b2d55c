"""Two groups of settings, pair by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import field_validator, model_validator
from scipy import stats

from mergerisk.statistics.cell_means import Design, is_diagnostic, make_design
from mergerisk.statistics.claims.claim import (
    FILTER_COLUMNS,
    SURROGATE_COLUMNS,
    TARGET_COLUMNS,
    Filters,
    Number,
    Unit,
    known_name,
)
from mergerisk.statistics.claims.means import NumberClaim, on_numbers
from mergerisk.statistics.claims.on_epsilon50 import by_signs
from mergerisk.statistics.claims.testing import (
    ClaimTest,
    bare,
    column_of,
    complete,
    depends_on,
    difference,
    made_on,
    select,
    settings_of,
)
from mergerisk.statistics.facts import Fact, fact

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.claim_tables import Tables


class PairedClaim(NumberClaim):
    """Two groups of settings, pair by pair.

    Attributes:
        first: filters of the first group.
        second: of the second.
        pair_by: columns that both settings of a pair share; by default all that no filter of either group names.
            Several settings of a group in one pair are averaged.
        against: the difference, first − second, in the measure's unit.
    """

    unit: ClassVar[Unit] = "pairs"

    kind: Literal["paired"] = "paired"
    first: Filters
    second: Filters
    pair_by: tuple[str, ...] = ()
    against: Number = 0.0

    @field_validator("pair_by")
    @classmethod
    def _columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return _with_task(columns) if columns else ()

    @model_validator(mode="after")
    def _within_tasks(self) -> PairedClaim:
        if "task" in self.first or "task" in self.second:
            raise ValueError("first and second: pairs are of one task; choose tasks by where")
        return self

    @property
    def filters(self) -> tuple[Mapping[str, tuple[str | float, ...]], ...]:
        """All of its filters."""
        return (self.where, self.first, self.second)

    @property
    def pairing(self) -> tuple[str, ...]:
        """``pair_by``, worked out."""
        if self.pair_by:
            return self.pair_by
        named = {*self.first, *self.second}
        columns = ["task"]
        columns += [name for name in ("attack", "epsilon") if name not in named]
        if not named & set(SURROGATE_COLUMNS):
            columns.append("surrogate")
        if not named & set(TARGET_COLUMNS):
            columns.append("target")
        elif named & {"method", "correction"} and "target" not in named:
            columns += [name for name in ("method", "correction") if name not in named]
        return tuple(columns)

    @property
    def compares_surrogates(self) -> bool:
        """Whether it holds one surrogate's attacks against another's."""
        return bool({*self.first, *self.second} & set(SURROGATE_COLUMNS))

    def image_pairs(self, table: pd.DataFrame) -> Design | None:
        """Its pairs, seed by seed; of a diagnostic, which fools nobody, none."""
        if is_diagnostic(self.measure):
            return None
        return pair_design(self, table, seeds=True)

    def tested(self, tables: Tables, denominator: str, level: float) -> ClaimTest:
        """See :meth:`Claim.tested`."""
        table = tables.rates
        column = column_of(self.measure, denominator)
        design = pair_design(self, table)
        compared = fact(
            "paired",
            measure=column,
            first=self.first,
            second=self.second,
            pair_by=tuple(depends_on(column, self.pairing)),
            margin=self.margin,
            surrogates=made_on(table.iloc[np.unique(design.rows)], column, self),
        )
        if not len(design.units):
            return ClaimTest(compared, column, missing=fact("no_setting_in_either_group"))
        return on_numbers(self, design, table, column, compared, denominator, level, difference)

    def also_counted(
        self,
        numbers: NDArray[np.float64],  # noqa: ARG002
        design: Design,
        table: pd.DataFrame,
        denominator: str,
    ) -> tuple[Fact, ...]:
        """The mean difference over all targets; of ASR, which pairs the sampling of images does not explain."""
        figures: list[Fact] = []
        named = {column for part in self.filters for column in part}
        if not named & set(TARGET_COLUMNS):
            everywhere = PairedClaim(
                **self.model_dump(exclude={"where"}),
                where={**self.where, "target_role": ("expert", "pretrained", "merge", "other")},
            )
            wide = pair_design(everywhere, table)
            _, matrix = complete(wide, table, column_of(self.measure, denominator))
            mean = float((matrix[:, 0] - matrix[:, 1]).mean())
            figures.append(fact("over_all_targets", measure=self.measure, value=mean))
        if bare(self.measure) == "asr":
            figures += _beyond_sampling(design, table, denominator)
        return tuple(figures)

    def tested_on_epsilon50(self, curves: pd.DataFrame) -> ClaimTest | None:
        """Which of the two groups is fooled at smaller budgets, pair by pair."""
        named = {*self.first, *self.second}
        if (
            bare(self.measure) not in {"asr", "relative_asr", "delta_asr"}
            or "epsilon" in named
            or self.against != 0
        ):
            return None
        if self.expect == "same":
            return None
        design = pair_design(self, curves)
        return by_signs(self, design.medians(curves["weakness"].to_numpy(dtype=np.float64)), design.tasks)


def pair_design(claim: PairedClaim, table: pd.DataFrame, *, seeds: bool = False) -> Design:
    """Units are pairs, treatments the first and the second group; with ``seeds`` each is a unit of its own."""
    base = settings_of(claim, table)
    chosen = table[base]
    first, second = select(chosen, claim.first), select(chosen, claim.second)
    side = np.where(first & ~second, 0, np.where(second & ~first, 1, -1))
    columns = [*depends_on(claim.measure, claim.pairing), *(["seed"] if seeds else [])]
    return make_design(chosen, columns, side, ("first", "second"))


def _beyond_sampling(design: Design, table: pd.DataFrame, denominator: str) -> list[Fact]:
    """Pairs that the sampling of images does not explain, by the two-proportion z-test at 5 %, which is cautious
    where both rates are of the same images."""
    rate, count = ("asr", "images_both_correct") if denominator == "both_correct" else ("asr_all", "images")
    rates = design.matrix(table[rate].to_numpy(dtype=np.float64))
    images = design.matrix(table[count].to_numpy(dtype=np.float64))
    if not np.isfinite(images).all():
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = (rates * images).sum(axis=1) / images.sum(axis=1)
        error = np.sqrt(pooled * (1 - pooled) * (1 / images).sum(axis=1))
        z = np.where(error > 0, (rates[:, 0] - rates[:, 1]) / error, 0.0)
    limit = float(stats.norm.isf(0.025))
    higher, lower = int((z > limit).sum()), int((z < -limit).sum())
    return [fact("beyond_sampling", higher=higher, lower=lower, of=len(z))]


def _with_task(columns: tuple[str, ...]) -> tuple[str, ...]:
    for column in columns:
        known_name(column, FILTER_COLUMNS, "column of pair_by")
    if "task" not in columns:
        raise ValueError("pair_by: must hold task: rates of different tasks are not compared")
    return columns
