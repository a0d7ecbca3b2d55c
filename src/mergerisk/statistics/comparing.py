"""What a claim compares: settings chosen, laid out as units × treatments, and tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.statistics.claims import Claim, ExtremeClaim, PairedClaim, RateClaim, TrendClaim
from mergerisk.statistics.means import compare_paired, compare_rate
from mergerisk.statistics.ranks import compare_extreme, compare_trend

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.statistics.comparison import Comparison


def compare(claim: Claim, table: pd.DataFrame, denominator: str, level: float) -> Comparison:
    """Test a claim on a table of rates, with tasks as what is independent.

    Settings of one task share its images and depend on each other, so they are averaged, or clustered, within the
    task. Of a single task the comparison is laid out, and left to a bootstrap of its images to test.

    Args:
        claim: what is claimed.
        table: :class:`mergerisk.statistics.Tables`' rates.
        denominator: ``both_correct`` or ``all``.
        level: of the critical difference, and of what could have been detected.
    """
    if isinstance(claim, RateClaim):
        return compare_rate(claim, table, denominator, level)
    if isinstance(claim, PairedClaim):
        return compare_paired(claim, table, denominator, level)
    if isinstance(claim, TrendClaim):
        return compare_trend(claim, table, denominator, level)
    assert isinstance(claim, ExtremeClaim)
    return compare_extreme(claim, table, denominator, level)
