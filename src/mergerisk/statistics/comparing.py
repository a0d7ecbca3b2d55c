"""What a claim compares: settings chosen, laid out as units × treatments, and tested."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from mergerisk.statistics.claims import (
    SURROGATE_COLUMNS,
    TARGET_COLUMNS,
    Claim,
    ExtremeClaim,
    PairedClaim,
    RateClaim,
    TrendClaim,
)
from mergerisk.statistics.correction import holm
from mergerisk.statistics.designs import Design, make_design
from mergerisk.statistics.power import detectable_lead, detectable_mean, detectable_rho, detectable_shift
from mergerisk.statistics.rank_tests import (
    RankPicture,
    conover,
    friedman,
    page,
    rank_picture,
    signed_rank,
)
from mergerisk.statistics.resampling import Aggregate, cluster_mean
from mergerisk.statistics.verdicts import Effect, Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

PERCENT_MEASURES = frozenset({"asr", "surrogate_asr", "clean_accuracy"})
"""Shares: their differences are shown in percentage points."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A claim's test, before any correction.

    Attributes:
        test: its name; empty if the data cannot say anything, for the reason in ``missing``.
        missing: why not.
        direction: 1 if the data lean to the claim, −1 if against it, 0 if to neither.
        numbers: one per unit; the first effect is their mean.
        aggregate: the same for resampled rates; None where they do not depend on outcomes.
        minus: what is taken from it, resample by resample.
        supported_in: where the interval of the first effect has to lie for the claim to be supported, and where no
            part of it may lie for it to be contradicted; None if it has no say.
        rows: the settings used.
        also: cautions of the test's own.

    The others are those of :class:`mergerisk.statistics.Verdict`.
    """

    comparison: str
    measure: str
    test: str = ""
    missing: str = ""
    units: int = 0
    left_out: int = 0
    statistic: float = np.nan
    p_value: float = np.nan
    direction: int = 0
    effects: tuple[Effect, ...] = ()
    threshold: float = np.nan
    supported_in: tuple[float, float] | None = None
    figures: tuple[Figure, ...] = ()
    numbers: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    unit_tasks: NDArray[np.object_] = field(default_factory=lambda: np.zeros(0, dtype=object))
    aggregate: Aggregate | None = None
    minus: Aggregate | None = None
    rows: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    detectable: Effect | None = None
    ranks: RankPicture | None = None
    also: tuple[str, ...] = ()


def bare(measure: str) -> str:
    """Without ``_all``."""
    return measure.removesuffix("_all")


def column_of(measure: str, denominator: str) -> str:
    """The column of rates that holds a measure."""
    ending = "_all" if denominator == "all" and measure != "clean_accuracy" else ""
    return f"{bare(measure)}{ending}"


def select(table: pd.DataFrame, *filters: Mapping[str, tuple[str | float, ...]]) -> NDArray[np.bool_]:
    """The rows that pass all filters."""
    kept = np.ones(len(table), dtype=bool)
    for part in filters:
        for column, values in part.items():
            if column == "epsilon":
                given = np.array([float(value) for value in values])
                known = table["epsilon"].to_numpy(dtype=np.float64)
                kept &= (np.abs(known[:, None] - given) < 1e-9).any(axis=1)
            else:
                kept &= table[column].isin(values).to_numpy()
    return kept


def settings_of(claim: Claim, table: pd.DataFrame) -> NDArray[np.bool_]:
    """The rows that a claim is about, with the defaults for roles that its filters do not name."""
    named = {column for part in claim.filters for column in part}
    kept = select(table, claim.where)
    if not named & {"target", "target_role"}:
        kept &= (table["target_role"] == "merge").to_numpy() | table["target"].isin(claim.needs).to_numpy()
        kept &= (table["surrogate"] != table["target"]).to_numpy()
    if not named & set(SURROGATE_COLUMNS):
        kept &= (table["surrogate_role"] != "merge").to_numpy()
    return kept


def compare(claim: Claim, table: pd.DataFrame, denominator: str, level: float) -> Comparison:
    """Test a claim on a table of rates.

    Args:
        claim: what is claimed.
        table: :class:`mergerisk.statistics.Tables`' rates.
        denominator: ``both_correct`` or ``all``.
        level: of the critical difference, and of what could have been detected.
    """
    if isinstance(claim, RateClaim):
        return _rate(claim, table, denominator, level)
    if isinstance(claim, PairedClaim):
        return _paired(claim, table, denominator, level)
    if isinstance(claim, TrendClaim):
        return _trend(claim, table, denominator, level)
    assert isinstance(claim, ExtremeClaim)
    return _extreme(claim, table, denominator, level)


def _rate(claim: RateClaim, table: pd.DataFrame, denominator: str, level: float) -> Comparison:
    column = column_of(claim.measure, denominator)
    chosen = table[settings_of(claim, table)]
    against = f"{_amount(claim.against, claim.measure)}{_margin(claim)}"
    words = f"{column} of every setting against {against}{_made_on(chosen, column)}"
    if chosen.empty:
        return Comparison(words, column, missing="no setting of the data is of this kind")
    units = _depends_on(column, ["task", "attack", "surrogate", "target", "epsilon"])
    design = make_design(chosen, units, np.zeros(len(chosen), dtype=np.intp), ("mean",))
    return _on_numbers(claim, design, table, column, words, denominator, level, partial(_treatment, 0))


def pair_design(claim: PairedClaim, table: pd.DataFrame, *, seeds: bool = False) -> Design:
    """Units are pairs, treatments the first and the second group; with ``seeds`` each is a unit of its own."""
    base = settings_of(claim, table)
    chosen = table[base]
    first, second = select(chosen, claim.first), select(chosen, claim.second)
    treatment = np.where(first & ~second, 0, np.where(second & ~first, 1, -1))
    columns = [*_depends_on(claim.measure, claim.pairing), *(["seed"] if seeds else [])]
    return make_design(chosen, columns, treatment, (_group(claim.first), _group(claim.second)))


def _paired(claim: PairedClaim, table: pd.DataFrame, denominator: str, level: float) -> Comparison:
    column = column_of(claim.measure, denominator)
    design = pair_design(claim, table)
    words = (
        f"{column}, {_group(claim.first)} minus {_group(claim.second)}, paired by "
        f"{', '.join(_depends_on(column, claim.pairing))}"
        f"{_margin(claim)}{_made_on(table.iloc[np.unique(design.rows)], column, claim)}"
    )
    if not len(design.units):
        return Comparison(words, column, missing="no setting of the data is in either group")
    found = _on_numbers(claim, design, table, column, words, denominator, level, difference)
    return found if found.test or found.missing else Comparison(words, column, missing="no pair is complete")


def _on_numbers(
    claim: RateClaim | PairedClaim,
    design: Design,
    table: pd.DataFrame,
    column: str,
    words: str,
    denominator: str,
    level: float,
    scalar: Callable[[NDArray[np.float64], NDArray[np.intp]], NDArray[np.float64]],
) -> Comparison:
    """A claim on the mean of one number per unit; of relative ASR over settings, on the ratio of two means."""
    everything = len(design.units)
    measure = bare(claim.measure)
    ratio = measure == "relative_asr"
    if ratio:
        found = ratio_numbers(design, table, column)
        if found is None:
            return Comparison(words, column, missing=f"{column} is known of no setting", left_out=everything)
        sample = found
    else:
        design, matrix = complete(design, table, column)
        known = scalar(matrix, np.arange(len(matrix)))
        aggregates = (Aggregate(design, measure, scalar),)
        sample = Numbers(design, known, known, lambda _: known, aggregates)
    design, numbers, shown = sample.design, sample.numbers, sample.shown
    left_out = everything - len(design.units)
    if len(design.units) < 2:
        missing = f"{column} is known of {len(design.units)} {_noun(claim)} only"
        return Comparison(words, column, missing=missing, left_out=left_out)
    tested = sample.against(claim.threshold)
    across = cluster_mean(tested, design.tasks)
    ranked = signed_rank(tested - claim.threshold)
    by_tasks = claim.test == "tasks" and across.clusters > 1
    also: list[str] = []
    if claim.test == "tasks" and not by_tasks:
        also.append("there is one task only: tested over its settings, which says nothing of other tasks")
    shift = _shifts(sample, claim, by_tasks=by_tasks)
    if by_tasks:
        test, statistic = (
            "t-test over tasks",
            (across.mean - claim.threshold) / across.error if across.error else np.inf,
        )
        detectable = detectable_mean(_task_means(numbers, design.tasks), level=level)
    else:
        test, statistic = "Wilcoxon signed-rank", ranked.statistic
        detectable = detectable_shift(numbers, level=level)
    mean, median = float(numbers.mean()), float(np.median(shown))
    if by_tasks and (mean - claim.threshold) * (median - claim.threshold) < 0:
        also.append("mean and median lie on different sides: a few settings carry the mean")
    figures = list(_counted(claim, shown, design, table, denominator))
    paired = isinstance(claim, PairedClaim)
    if ratio:
        what, by_itself = "pairs' own differences" if paired else "settings' own ratios", float(shown.mean())
        figures.append(Figure(f"mean of the {what}", f"{by_itself:.3f}"))
        if abs(by_itself - mean) > max(_CARRIED * max(abs(by_itself), abs(mean)), _LITTLE):
            also.append(
                f"the mean of the {what} is {by_itself:.3f}, carried by few with surrogates rarely fooled: "
                f"the {'difference of ratios' if paired else 'ratio'} of means is judged"
            )
    names = ("mean difference", "median") if paired else ("mean", "median")
    if ratio:
        names = (
            ("difference of ratios of mean ASRs", "median of pairs")
            if paired
            else ("ratio of mean ASRs", "median of settings")
        )
    effects = [
        _effect(names[0], mean, measure),
        _effect(names[1], median, measure),
        Effect("matched-pairs rank-biserial correlation", ranked.rank_biserial),
    ]
    ends = {"higher": (claim.threshold, np.inf), "lower": (-np.inf, claim.threshold)}
    inside = ends.get(claim.expect, (claim.against - claim.margin, claim.against + claim.margin))
    unit = 100 if measure in PERCENT_MEASURES else 1
    return Comparison(
        words,
        column,
        test,
        units=len(numbers),
        left_out=left_out,
        statistic=float(statistic),
        p_value=shift[0],
        direction=shift[1],
        effects=tuple(effects),
        threshold=_effect("", claim.threshold, measure).value,
        figures=tuple(figures),
        supported_in=(unit * inside[0], unit * inside[1]),
        numbers=numbers * unit,
        unit_tasks=design.tasks,
        aggregate=None if measure == "clean_accuracy" else sample.aggregates[0],
        minus=sample.aggregates[1] if sample.aggregates[1:] else None,
        rows=design.rows,
        detectable=_effect(
            "difference of the ratio of means" if ratio else "mean difference", detectable, measure
        ),
        also=tuple(also),
    )


_CARRIED, _LITTLE = 0.1, 0.02
"""From this difference on, relative to the larger and by itself, a mean of ratios is said to differ much from a
ratio of means."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """One number per unit.

    Attributes:
        design: of the units that have one.
        numbers: their mean is the effect.
        shown: what a unit is by itself.
        against: number → what is tested against it, unit by unit.
        aggregates: the effect for resampled rates; of two the first minus the second.
    """

    design: Design
    numbers: NDArray[np.float64]
    shown: NDArray[np.float64]
    against: Callable[[float], NDArray[np.float64]]
    aggregates: tuple[Aggregate, ...]


def ratio_numbers(design: Design, table: pd.DataFrame, column: str) -> Numbers | None:
    """A ratio of means, or the difference of two, as a mean of numbers.

    With ASRs a of targets and s of surrogates, R + (a − R s) / mean s has the mean R = Σa / Σs, and its spread is
    that of the ratio (Cochran 1977, section 6.4). Whether R lies above a number θ is whether a − θ s lies above 0
    on average: θ + (a − θ s) / mean s is tested against θ; of two groups the difference of their a / mean s.

    Args:
        design: of one treatment or two.
        table: rates of settings.
        column: ``relative_asr`` or ``relative_asr_all``.

    Returns:
        None where the surrogates of a treatment are never fooled, or nothing is known.
    """
    asr, own = (design.matrix(values) for values in _parts(table, column))
    kept = np.flatnonzero(~np.isnan(asr).any(axis=1))
    design, asr, own = design.select(kept), asr[kept], own[kept]
    if not (own.sum(axis=0) > 0).all():
        return None
    ratios, means = asr.sum(axis=0) / own.sum(axis=0), own.mean(axis=0)
    numbers = _less(ratios + (asr - ratios * own) / means)

    def against(number: float) -> NDArray[np.float64]:
        return _less(asr / means if len(means) > 1 else number + (asr - number * own) / means)

    fooled = (own > 0).all(axis=1)
    aggregates = tuple(
        Aggregate(design, "asr", partial(_treatment, place), over="surrogate_asr") for place in range(len(means))
    )
    return Numbers(design, numbers, _less(asr[fooled] / own[fooled]), against, aggregates)


def _less(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The only treatment, or the first minus the second."""
    return matrix[:, 0] if matrix.shape[1] == 1 else matrix[:, 0] - matrix[:, 1]


def _treatment(place: int, matrix: NDArray[np.float64], units: NDArray[np.intp]) -> NDArray[np.float64]:  # noqa: ARG001
    return np.asarray(matrix[..., place], dtype=np.float64)


def _shifts(sample: Numbers, claim: RateClaim | PairedClaim, *, by_tasks: bool) -> tuple[float, int]:
    """Two-sided p-value, and which way the data lean."""

    def sides(threshold: float) -> tuple[float, float, float, float]:
        """One-sided p-values for above and below, the two-sided one, and what has the sign of the difference."""
        numbers = sample.against(threshold)
        if by_tasks:
            across = cluster_mean(numbers, sample.design.tasks)
            above = across.p_greater(threshold)
            below = 1 - above if across.error else float(across.mean >= threshold)
            return above, below, min(1.0, 2 * min(above, below)), across.mean - threshold
        found = signed_rank(numbers - threshold)
        return found.p_greater, found.p_less, found.p_value, found.rank_biserial

    if claim.expect != "same":
        _, _, p, lean = sides(claim.threshold)
        return p, int(np.sign(lean)) * (1 if claim.expect == "higher" else -1)
    # Two one-sided tests (Schuirmann 1987): within the margin if above its lower end and below its upper one.
    over_low, under_low, _, lean_low = sides(claim.against - claim.margin)
    over_high, under_high, _, lean_high = sides(claim.against + claim.margin)
    if lean_low > 0 > lean_high:
        return max(over_low, under_high), 1
    return min(1.0, 2 * min(under_low, over_high)), -1


def _counted(
    claim: RateClaim | PairedClaim,
    numbers: NDArray[np.float64],
    design: Design,
    table: pd.DataFrame,
    denominator: str,
) -> tuple[Figure, ...]:
    """How many units are where, and what else people state of such data."""
    measure, against = bare(claim.measure), claim.against
    beyond = (numbers - against).round(12)
    low = claim.expect == "lower"
    inside = beyond <= 0 if low else beyond >= 0
    side = "at or below" if low else "at or above"
    what = f"{_noun(claim)} {side} {_amount(against, claim.measure)}"
    figures = [Figure(what, f"{int(inside.sum())} of {len(numbers)}")]
    if not isinstance(claim, PairedClaim):
        if measure != "delta_asr":
            return tuple(figures)
        clipped = against + (np.minimum(beyond, 0) if low else np.maximum(beyond, 0)).mean()
        beyond_it = "above" if low else "below"
        shown = _amount(against, claim.measure)
        figures.append(
            Figure(
                f"mean with settings {beyond_it} {shown} counted as {shown}",
                _amount(float(clipped), claim.measure),
            )
        )
        return tuple(figures)
    named = {column for part in claim.filters for column in part}
    if not named & set(TARGET_COLUMNS):
        everywhere = PairedClaim(
            **claim.model_dump(exclude={"where"}),
            where={**claim.where, "target_role": ("expert", "pretrained", "merge", "other")},
        )
        wide = pair_design(everywhere, table)
        _, matrix = complete(wide, table, column_of(claim.measure, denominator))
        mean = float((matrix[:, 0] - matrix[:, 1]).mean())
        figures.append(
            Figure("mean difference over all targets, ingredients included", _amount(mean, claim.measure))
        )
    if measure == "asr":
        figures += _beyond_sampling(design, table, denominator)
    return tuple(figures)


def _beyond_sampling(design: Design, table: pd.DataFrame, denominator: str) -> list[Figure]:
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
    text = f"{int((z > limit).sum())} higher, {int((z < -limit).sum())} lower, of {len(z)}"
    return [Figure("pairs that differ beyond the sampling of images (5 % level each)", text)]


def _trend(claim: TrendClaim, table: pd.DataFrame, denominator: str, level: float) -> Comparison:
    column = column_of(claim.measure, denominator)
    by = _depends_on(column, claim.block_by)
    along = column_of(claim.by, denominator) if claim.by else f"{' < '.join(claim.order)}"
    chosen = table[settings_of(claim, table)]
    words = f"{column} along {along} of targets, blocked by {', '.join(by)}{_made_on(chosen, column)}"
    targets = claim.order or tuple(sorted(chosen["target"].unique()))
    lacking = [name for name in claim.order if name not in set(chosen["target"])]
    if lacking or len(targets) < 2:
        missing = f"{lacking[0]} is not among the targets" if lacking else "there are not two targets to compare"
        return Comparison(words, column, missing=missing)
    design = make_design(chosen, by, _position(chosen["target"], targets), targets)
    everything = len(design.units)
    if claim.by:
        orders = design.matrix(table[along].to_numpy(dtype=np.float64))
        if np.isnan(orders).all():
            return Comparison(words, column, missing=f"the data hold no {claim.by}")
        design = design.select(np.flatnonzero(~np.isnan(orders).any(axis=1)))
    design, matrix = complete(design, table, column)
    left_out = everything - len(design.units)
    if len(design.units) < 2:
        missing = f"{len(design.units)} of {everything} blocks hold every target"
        return Comparison(words, column, missing=missing, left_out=left_out)
    order = (
        design.matrix(table[along].to_numpy(dtype=np.float64))
        if claim.by
        else np.broadcast_to(np.arange(len(targets), dtype=np.float64), matrix.shape)
    )
    found = page(matrix, order)
    rising = 1 if found.p_rising < found.p_falling else -1 if found.p_falling < found.p_rising else 0
    per_block = found.rhos[~np.isnan(found.rhos)]
    measure = bare(claim.measure)
    unit = 100 if measure in PERCENT_MEASURES else 1
    slopes = stats.rankdata(order, axis=1) - (len(targets) + 1) / 2
    spread = (slopes**2).sum(axis=1, keepdims=True)
    slopes = np.divide(slopes, spread, out=np.zeros_like(slopes), where=spread > 0)

    def rise(matrix: NDArray[np.float64], units: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.asarray((matrix * slopes[units]).sum(axis=-1), dtype=np.float64)

    numbers = rise(matrix, np.arange(len(matrix)))
    return Comparison(
        words,
        column,
        f"Page's trend test ({'exact' if found.exact else 'normal approximation'})",
        units=len(matrix),
        left_out=left_out,
        statistic=found.statistic,
        p_value=found.p_value,
        direction=rising if claim.expect == "rising" else -rising,
        effects=(
            _effect("mean rise per place in the order", float(numbers.mean()), measure),
            Effect("mean Spearman ρ per block", found.rho),
            Effect("median ρ", float(np.median(per_block)) if len(per_block) else np.nan),
        ),
        threshold=0.0,
        supported_in=(0.0, np.inf) if claim.expect == "rising" else (-np.inf, 0.0),
        figures=(
            Figure("blocks with ρ above 0", f"{int((per_block > 0).sum())} of {len(per_block)}"),
            Figure("targets ordered", str(len(targets))),
        ),
        numbers=unit * numbers,
        unit_tasks=design.tasks,
        aggregate=None if measure == "clean_accuracy" else Aggregate(design, measure, rise),
        rows=design.rows,
        detectable=Effect("mean ρ", detectable_rho(len(matrix), len(targets), level=level)),
        ranks=rank_picture(matrix, targets, level=level),
    )


def _extreme(claim: ExtremeClaim, table: pd.DataFrame, denominator: str, level: float) -> Comparison:
    parts = [_extreme_by(claim, measure, table, denominator, level) for measure in claim.measures]
    first = parts[0]
    if len(parts) == 1:
        return first
    words = f"{first.comparison}; and by {', '.join(part.measure for part in parts[1:])}"
    untested = next((part for part in parts if not part.test), None)
    if untested is not None:
        return Comparison(words, first.measure, missing=f"by {untested.measure}: {untested.missing}")
    against = [part for part in parts if part.direction < 0]
    # All have to hold, so the weakest decides (Berger 1982); one against it is enough, of as many tries.
    decisive = (
        min(against, key=lambda part: part.p_value) if against else max(parts, key=lambda part: part.p_value)
    )
    p = min(1.0, decisive.p_value * len(parts)) if against else decisive.p_value
    return Comparison(
        words,
        first.measure,
        f"{first.test}, by each measure",
        units=decisive.units,
        left_out=decisive.left_out,
        statistic=decisive.statistic,
        p_value=p,
        direction=-1 if against else min(part.direction for part in parts),
        effects=(
            *decisive.effects,
            *(effect for part in parts if part is not decisive for effect in part.effects),
        ),
        threshold=decisive.threshold,
        supported_in=decisive.supported_in,
        figures=tuple(figure for part in parts for figure in part.figures),
        numbers=decisive.numbers,
        unit_tasks=decisive.unit_tasks,
        aggregate=decisive.aggregate,
        rows=first.rows,
        detectable=decisive.detectable,
        ranks=first.ranks,
        also=(f"the weakest part decides: by {decisive.measure}",),
    )


def _extreme_by(
    claim: ExtremeClaim, measure: str, table: pd.DataFrame, denominator: str, level: float
) -> Comparison:
    column = column_of(measure, denominator)
    by = _depends_on(measure, claim.block_by)
    chosen = table[settings_of(claim, table)]
    words = (
        f"{column} of {claim.method} against every other target, blocked by {', '.join(by)}"
        f"{_made_on(chosen, column)}"
    )
    targets = tuple(sorted(chosen["target"].unique()))
    if claim.method not in targets or len(targets) < 2:
        missing = (
            f"{claim.method} is not among the targets"
            if len(targets) > 1
            else "there is nothing to compare it with"
        )
        return Comparison(words, column, missing=missing)
    design = make_design(chosen, by, _position(chosen["target"], targets), targets)
    everything = len(design.units)
    design, matrix = complete(design, table, column)
    left_out = everything - len(design.units)
    if len(matrix) < 2:
        known = (
            f"the data hold no {measure}"
            if table[column].isna().all()
            else f"{len(matrix)} of {everything} blocks hold every target"
        )
        return Comparison(words, column, missing=known, left_out=left_out)
    # Rank 1 is what the claim says of its method: the highest ASR, or the lowest accuracy, for the worst.
    sign = (1.0 if claim.kind == "worst" else -1.0) * (-1.0 if measure == "clean_accuracy" else 1.0)
    found = friedman(sign * matrix)
    place = targets.index(claim.method)
    others = np.array([column for column in range(len(targets)) if column != place])
    ranks = found.mean_ranks
    pairwise = conover(sign * matrix)[place, others]
    ahead = ranks[others] < ranks[place]
    if ahead.any():
        p = max(found.p_value, float(holm(pairwise)[ahead].min()))
        direction = -1
    else:
        p = max(found.p_value, float(pairwise.max()))
        direction = 1 if (ranks[others] > ranks[place]).all() else 0
    extreme = "highest" if sign > 0 else "lowest"
    means = sign * matrix.mean(axis=0)
    nearest = int(others[int(np.argmax(means[others]))])
    rival = targets[nearest]

    def lead(matrix: NDArray[np.float64], units: NDArray[np.intp]) -> NDArray[np.float64]:  # noqa: ARG001
        return np.asarray(sign * (matrix[..., place] - matrix[..., nearest]), dtype=np.float64)

    numbers = lead(matrix, np.arange(len(matrix)))
    unit = 100 if bare(measure) in PERCENT_MEASURES else 1
    first = int((stats.rankdata(-sign * matrix, axis=-1)[:, place] == 1).sum())
    blocks = "blocks" if len(by) > 1 else "tasks"
    accuracy = measure == "clean_accuracy"
    return Comparison(
        words,
        column,
        "Friedman, then Conover against every other",
        units=len(matrix),
        left_out=left_out,
        statistic=found.statistic,
        p_value=p,
        direction=direction,
        effects=(
            _effect(f"mean lead in {column} over {rival}", float(numbers.mean()), bare(measure)),
            Effect(
                f"mean rank of {claim.method} by {column} (1 of {len(targets)}: {extreme})", float(ranks[place])
            ),
            Effect(f"Kendall's W by {column}", found.kendalls_w),
        ),
        threshold=0.0,
        supported_in=(0.0, np.inf),
        figures=(
            Figure(f"{blocks} in which {claim.method} has the {extreme} {column}", f"{first} of {len(numbers)}"),
        ),
        numbers=unit * numbers,
        unit_tasks=design.tasks,
        aggregate=None if accuracy else Aggregate(design, bare(measure), lead),
        rows=np.zeros(0, dtype=np.intp) if accuracy else design.rows,
        detectable=Effect("lead in mean rank", detectable_lead(len(matrix), len(targets), level=level)),
        ranks=rank_picture(sign * matrix, targets, level=level),
    )


def difference(matrix: NDArray[np.float64], units: NDArray[np.intp] | None = None) -> NDArray[np.float64]:  # noqa: ARG001
    """First minus second."""
    return np.asarray(matrix[..., 0] - matrix[..., 1], dtype=np.float64)


def complete(design: Design, table: pd.DataFrame, column: str) -> tuple[Design, NDArray[np.float64]]:
    """The units without a missing cell, and the matrix of their means; of relative ASR ratios of means."""
    if bare(column) == "relative_asr":
        asr, own = (design.matrix(values) for values in _parts(table, column))
        with np.errstate(invalid="ignore", divide="ignore"):
            matrix = np.where(own > 0, asr / own, np.nan)
    else:
        matrix = design.matrix(table[column].to_numpy(dtype=np.float64))
    kept = np.flatnonzero(~np.isnan(matrix).any(axis=1))
    return design.select(kept), matrix[kept]


def _parts(table: pd.DataFrame, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ASR of target and surrogate, of settings where both are known; what relative ASR is the ratio of."""
    ending = column.removeprefix("relative_asr")
    asr, own = (table[f"{name}{ending}"].to_numpy(dtype=np.float64) for name in ("asr", "surrogate_asr"))
    return np.where(np.isnan(own), np.nan, asr), np.where(np.isnan(asr), np.nan, own)


def _made_on(chosen: pd.DataFrame, column: str, claim: Claim | None = None) -> str:
    """Which surrogates' attacks are compared, unless they are what is compared."""
    named = {} if claim is None else {name for part in claim.filters[1:] for name in part}
    names = sorted(str(name) for name in chosen["surrogate"].unique())
    if column == "clean_accuracy" or not names or set(SURROGATE_COLUMNS) & set(named):
        return ""
    more = f" and {len(names) - 4} others" if len(names) > 5 else ""
    listed = ", ".join(names[:4] if more else names)
    return f"; attacks made on {listed}{more}"


def _depends_on(measure: str, columns: Sequence[str]) -> list[str]:
    """The columns that a measure can differ by: a clean accuracy knows no attack, surrogate or budget, and the
    same number again and again would be no further evidence."""
    if measure != "clean_accuracy":
        return list(columns)
    return [name for name in columns if name not in {"attack", "epsilon", *SURROGATE_COLUMNS}]


def _position(column: pd.Series, names: tuple[str, ...]) -> NDArray[np.intp]:
    places = {name: place for place, name in enumerate(names)}
    return np.array([places.get(name, -1) for name in column], dtype=np.intp)


def _task_means(numbers: NDArray[np.float64], tasks: NDArray[np.object_]) -> NDArray[np.float64]:
    return np.array([numbers[tasks == task].mean() for task in sorted(set(tasks))])


def _noun(claim: Claim) -> str:
    return "pairs" if isinstance(claim, PairedClaim) else "settings"


def _group(filters: Mapping[str, tuple[str | float, ...]]) -> str:
    return " and ".join(
        f"{column.replace('_role', '')} {' or '.join(str(value) for value in values)}"
        for column, values in filters.items()
    )


def _margin(claim: RateClaim | PairedClaim) -> str:
    return f", margin {_amount(claim.margin, claim.measure)}" if claim.margin else ""


def _effect(name: str, value: float, measure: str) -> Effect:
    """Shares as percentage points; ΔASR is in those already."""
    if measure in PERCENT_MEASURES:
        return Effect(name, 100 * value, "points")
    return Effect(name, value, "points" if measure == "delta_asr" else "")


def _amount(value: float, measure: str) -> str:
    shown = _effect("", value, bare(measure))
    return f"{shown.value:+.2f} points" if shown.unit and shown.value else f"{shown.value:.4g}"
