"""Security evaluation curves (Biggio and Roli 2018): ASR against ε for one setting, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import bdtrc

from mergerisk.statistics.facts import Fact, fact
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Status = Literal["measured", "below_smallest", "not_reached", "no_images"]


@dataclass(frozen=True)
class Epsilon50:
    """The budget that fools half of the images.

    Attributes:
        value: in pixel units; NaN unless ``status`` is ``measured``.
        status: ``measured``; ``below_smallest``, the smallest budget already fools half; ``not_reached``, no
            budget does; ``no_images``, nothing counts.
        low: lower end of the interval; 0 where it lies below the smallest budget.
        high: upper end; infinite where it is not reached.
    """

    value: float
    status: Status
    low: float
    high: float


def epsilon50(
    fooled: NDArray[np.bool_],
    epsilons: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Epsilon50:
    """Where ASR first crosses one half, log-linearly between measured budgets.

    Args:
        fooled: images × budgets; the images that count.
        epsilons: the budgets, rising.
        confidence: coverage aimed at by the percentile bootstrap over images.
        resamples: bootstrap resamples; those of the same number of images and seed are the same, so that
            curves over the same images stay paired.
        seed: of the resampling.
    """
    return epsilon50_of([(fooled, epsilons)], confidence=confidence, resamples=resamples, seed=seed)[0]


_COLUMNS = 4096
"""Columns that are resampled at once."""


def epsilon50_of(
    curves: Sequence[tuple[NDArray[np.bool_], Sequence[float]]],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Epsilon50]:
    """:func:`epsilon50` of many curves, the same values in a fraction of the time: curves over as many images
    share their resamples.

    Args:
        curves: of each what ``epsilon50`` takes, ``fooled`` and ``epsilons``.
        confidence: as there.
        resamples: as there.
        seed: as there.
    """
    found = [Epsilon50(np.nan, "no_images", np.nan, np.nan)] * len(curves)
    alike: dict[int, dict[tuple[float, ...], list[int]]] = {}
    for place, (fooled, epsilons) in enumerate(curves):
        if len(fooled):
            alike.setdefault(len(fooled), {}).setdefault(tuple(epsilons), []).append(place)
    tail = (1 - confidence) / 2
    with one_thread():
        for images, by_budgets in alike.items():
            draws = _draws(images, resamples, seed)
            for epsilons, places in by_budgets.items():
                budgets = np.asarray(epsilons, dtype=np.float64)
                step = max(1, _COLUMNS // len(budgets))
                for part in (places[start : start + step] for start in range(0, len(places), step)):
                    side_by_side = np.concatenate([curves[place][0] for place in part], axis=1)
                    # Whole numbers, exact in float32 whatever the order of adding.
                    counts = (draws @ side_by_side.astype(np.float32)).astype(np.float64)
                    resampled = crossings((counts / images).reshape(-1, len(budgets)), budgets)
                    # Order statistics instead of interpolated quantiles: none lies between a number and infinity.
                    ends = np.quantile(
                        resampled.reshape(resamples, -1), [tail, 1 - tail], axis=0, method="inverted_cdf"
                    )
                    points = crossings(side_by_side.mean(axis=0).reshape(-1, len(budgets)), budgets)
                    for place, point, low, high in zip(part, points, *ends, strict=True):
                        found[place] = _epsilon50(float(point), float(low), float(high))
    return found


def _epsilon50(point: float, low: float, high: float) -> Epsilon50:
    status: Status = "below_smallest" if point == 0 else "not_reached" if np.isinf(point) else "measured"
    return Epsilon50(point if status == "measured" else np.nan, status, low, high)


def _draws(images: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """How often each bootstrap resample draws each image: resamples × images."""
    random = np.random.default_rng([seed, images])
    return random.multinomial(images, np.full(images, 1 / images), resamples).astype(np.float32)


def crossings(rates: NDArray[np.float64], epsilons: NDArray[np.float64]) -> NDArray[np.float64]:
    """First crossing of one half per curve, log-linear between budgets: 0 below the smallest, ∞ never.

    Args:
        rates: curves × budgets.
        epsilons: the budgets, rising, above 0.
    """
    reached = rates >= 0.5
    first = reached.argmax(axis=1)
    before = np.maximum(first - 1, 0)
    rows = np.arange(len(rates))
    low, high = rates[rows, before], rates[rows, first]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(first > 0, (0.5 - low) / (high - low), 0.0)
    logs = np.log(epsilons)
    crossing = np.exp(logs[before] + share * (logs[first] - logs[before]))
    return np.where(~reached.any(axis=1), np.inf, np.where(first == 0, 0.0, crossing))


@dataclass(frozen=True)
class Fall:
    """A stretch of a curve where ASR falls as ε grows, more than chance explains.

    Attributes:
        position: of the smaller budget; the next one is the larger.
        asr_from: ASR at the smaller budget.
        asr_to: ASR at the larger.
        p_value: one-sided exact McNemar on the images whose outcome changed.
        reason: the likely one.
    """

    position: int
    asr_from: float
    asr_to: float
    p_value: float
    reason: Fact


def falls(
    fooled: NDArray[np.bool_],
    *,
    surrogate_fooled: NDArray[np.bool_],
    zero_gradients: NDArray[np.bool_],
    single_step: bool,
    level: float = 0.01,
) -> list[Fall]:
    """Where a curve falls between neighbouring budgets, and why it may.

    Args:
        fooled: images × budgets, outcomes on the target.
        surrogate_fooled: the same images on the surrogate.
        zero_gradients: the same images: whether crafting met an all-zero gradient.
        single_step: whether the attack takes one step.
        level: largest p-value that is reported.
    """
    found = []
    for position in range(fooled.shape[1] - 1):
        lost = fooled[:, position] & ~fooled[:, position + 1]
        gained = int((~fooled[:, position] & fooled[:, position + 1]).sum())
        count = int(lost.sum())
        p_value = float(bdtrc(count - 1, count + gained, 0.5)) if count else 1.0
        if count <= gained or p_value > level:
            continue
        stuck = int((lost & zero_gradients[:, position + 1]).sum())
        surrogate_lost = lost & ~surrogate_fooled[:, position + 1]
        if 2 * stuck >= count:
            reason = fact("zero_gradients", count=stuck, of=count)
        elif single_step:
            reason = fact("step_overshoots")
        elif 2 * int(surrogate_lost.sum()) >= count:
            reason = fact("steps_overshoot_on_surrogate")
        else:
            reason = fact("overfits_surrogate")
        rates = fooled[:, position : position + 2].mean(axis=0)
        found.append(Fall(position, float(rates[0]), float(rates[1]), p_value, reason))
    return found
