"""Two targets compared on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.statistics.claims import PairedClaim, check_claims
from mergerisk.statistics.claims.means import ratio_numbers
from mergerisk.statistics.claims.paired import pair_design
from mergerisk.statistics.claims.testing import column_of, complete, difference
from mergerisk.statistics.judging import check_options
from mergerisk.statistics.pairs import image_pairs, mcnemar_table
from mergerisk.statistics.resampling import Aggregate, Resampler

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.statistics.claim_tables import Tables
    from mergerisk.statistics.clusters import Interval
    from mergerisk.statistics.pairs import ImagePairs
    from mergerisk.statistics.resampling import TasksAs


@dataclass(frozen=True, eq=False)
class TargetPair:
    """Two targets compared on the same images.

    Attributes:
        settings: McNemar's test per setting; see :func:`mergerisk.statistics.mcnemar_table`.
        summary: of it; None if no setting has both.
        differences: per measure the mean over settings of first − second (shares; ΔASR in points); of relative ASR
            the difference of two ratios of means.
        intervals: of each.
    """

    settings: pd.DataFrame
    summary: ImagePairs | None
    differences: dict[str, float]
    intervals: dict[str, Interval]


def compare_targets(
    tables: Tables,
    first: str,
    second: str,
    *,
    denominator: str = "both_correct",
    seed: int = 0,
    level: float = 0.05,
    resamples: int = 1000,
    tasks: TasksAs = "strata",
) -> TargetPair:
    """Two targets on the same images: exact McNemar per setting, and a paired bootstrap of mean differences.

    Args:
        tables: with outcomes.
        first: a target.
        second: another.
        denominator: ``both_correct`` or ``all``.
        seed: of the bootstrap.
        level: intervals have confidence 1 − level.
        resamples: of the bootstrap.
        tasks: ``strata`` or ``clusters``; see :func:`judge_claims`.

    Raises:
        UserError: a target is not in the data, or there are no outcomes.
    """
    check_options(seed, level, resamples)
    resampler = Resampler(tables, seed, 1 - level, resamples, tasks)
    if not resampler.outcomes:
        raise UserError(f"{tables.source}: holds rates only; images are compared in a finished run's outcomes")
    one, other = {"target": (first,)}, {"target": (second,)}
    pair = PairedClaim(
        name="pair", sentence="They differ.", first=one, second=other, expect="higher", measure="asr"
    )
    check_claims([pair], tables.rates)
    laid_out = pair_design(pair, tables.rates)
    aggregates, means = [], {}
    for measure in ("asr", "delta_asr"):
        design, matrix = complete(laid_out, tables.rates, column_of(measure, denominator))
        if len(matrix):
            means[measure] = float(difference(matrix).mean())
            aggregates.append(Aggregate(design, measure, difference))
    ratio = ratio_numbers(laid_out, tables.rates, column_of("relative_asr", denominator))
    if ratio is not None:
        means["relative_asr"] = float(ratio.numbers.mean())
        aggregates += ratio.aggregates
    resampled = resampler.resample(aggregates, [denominator] * len(aggregates))
    if ratio is not None:
        *resampled, one_drawn, other_drawn = resampled
        resampled.append(one_drawn - other_drawn)
    table = mcnemar_table(pair_design(pair, tables.rates, seeds=True), resampler.outcomes, denominator)
    return TargetPair(
        table,
        image_pairs(table, level=level),
        means,
        {name: resampler.around(means[name], values) for name, values in zip(means, resampled, strict=True)},
    )
