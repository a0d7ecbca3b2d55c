"""Percentile bootstrap over images of rates that share them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mergerisk.report.comparison.matrices import Matrices

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Resampled:
    """Rates under every resample, resamples × settings; NaN where a denominator is 0."""

    asr: NDArray[np.float64]
    surrogate: NDArray[np.float64]
    relative: NDArray[np.float64]


def draws(images: int, seed: Sequence[int]) -> NDArray[np.float64]:
    """How often each resample draws each image: `RESAMPLES` × images."""
    random = np.random.default_rng([*seed, images])
    return random.multinomial(images, np.full(images, 1 / images), RESAMPLES).astype(np.float64)


def resampled(happened: Matrices, drawn: NDArray[np.float64]) -> Resampled:
    """ASR of target and surrogate, and relative ASR, under every resample."""
    # floating, since NumPy multiplies integers without BLAS
    counts, target, surrogate = (
        drawn @ part.T.astype(np.float64)
        for part in (happened.counts, happened.target_fooled, happened.surrogate_fooled)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        asr, own = (np.where(counts > 0, part / counts, np.nan) for part in (target, surrogate))
        return Resampled(asr, own, np.where(surrogate > 0, target / surrogate, np.nan))


def ends(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile interval down the first axis, resamples without a value left out; NaN where none has one."""
    tail = (1 - CONFIDENCE) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        low, high = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return low, high
