"""A mean over settings against a number."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from mergerisk.statistics.cell_means import make_design
from mergerisk.statistics.claims.means import NumberClaim, on_numbers
from mergerisk.statistics.claims.on_epsilon50 import by_signs
from mergerisk.statistics.claims.testing import (
    ClaimTest,
    bare,
    column_of,
    depends_on,
    made_on,
    settings_of,
    treatment,
)
from mergerisk.statistics.facts import Fact, fact

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.cell_means import Design
    from mergerisk.statistics.claim_tables import Tables


class RateClaim(NumberClaim):
    """A mean over settings against a number: ``{kind: rate, measure: asr, expect: higher, against: 0.5}``."""

    kind: Literal["rate"] = "rate"

    def tested(self, tables: Tables, denominator: str, level: float) -> ClaimTest:
        """See :meth:`Claim.tested`."""
        table = tables.rates
        column = column_of(self.measure, denominator)
        chosen = table[settings_of(self, table)]
        compared = fact(
            "rate", measure=column, against=self.against, margin=self.margin, surrogates=made_on(chosen, column)
        )
        if chosen.empty:
            return ClaimTest(compared, column, missing=fact("no_setting"))
        units = depends_on(column, ["task", "attack", "surrogate", "target", "epsilon"])
        design = make_design(chosen, units, np.zeros(len(chosen), dtype=np.intp), ("mean",))
        return on_numbers(self, design, table, column, compared, denominator, level, partial(treatment, 0))

    def also_counted(
        self,
        numbers: NDArray[np.float64],
        design: Design,  # noqa: ARG002
        table: pd.DataFrame,  # noqa: ARG002
        denominator: str,  # noqa: ARG002
    ) -> tuple[Fact, ...]:
        """Of ΔASR: the mean with everything beyond ``against`` counted as that, as the poster has it."""
        if bare(self.measure) != "delta_asr":
            return ()
        against, low = self.against, self.expect == "lower"
        beyond = (numbers - against).round(12)
        clipped = against + (np.minimum(beyond, 0) if low else np.maximum(beyond, 0)).mean()
        value = float(clipped)
        return (fact("clipped_mean", below=low, against=against, measure=self.measure, value=value),)

    def tested_on_epsilon50(self, curves: pd.DataFrame) -> ClaimTest | None:
        """Whether targets are fooled at smaller budgets than their surrogates."""
        even = {"relative_asr": 1.0, "delta_asr": 0.0}.get(bare(self.measure))
        if even is None or self.against != even or self.expect == "same":
            return None
        chosen = curves[settings_of(self, curves)]
        pairs = chosen[["weakness", "surrogate_weakness"]].to_numpy(dtype=np.float64)
        return by_signs(self, pairs, chosen["task"].to_numpy(dtype=object))
