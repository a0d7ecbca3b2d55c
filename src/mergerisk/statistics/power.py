"""The smallest effect that a study could have found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def detectable_shift(differences: ArrayLike, *, level: float = 0.05, power: float = 0.8) -> float:
    """The mean paired difference that a two-sided signed-rank test of as many pairs finds with ``power``.

    (z_{1−α/2} + z_power) s / √n, over √(3/π), the test's relative efficiency for normal differences (Lehmann 1975,
    section 2.5); s is the observed standard deviation.

    Returns:
        In the differences' unit; NaN for fewer than two pairs.
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2:
        return np.nan
    return float(_z(level, power) * d.std(ddof=1) / np.sqrt(len(d) * 3 / np.pi))


def detectable_share(images: int, discordant: float, *, level: float = 0.05, power: float = 0.8) -> float:
    """The difference of two rates on the same images that McNemar's test finds with ``power``.

    Connor (1987), equation 3, solved for the difference δ: √n δ = z_{1−α/2} √ψ + z_power √(ψ − δ²).

    Args:
        images: pairs of outcomes.
        discordant: ψ, the share of images on which exactly one of the two is fooled.
        level: two-sided.
        power: to reach.

    Returns:
        A share in [0, ψ]; NaN where not even δ = ψ, every discordant image on one side, would be found.
    """
    if images < 1 or discordant <= 0:
        return np.nan

    def shortfall(delta: float) -> float:
        wanted = float(ndtri(1 - level / 2)) * np.sqrt(discordant)
        wanted += float(ndtri(power)) * np.sqrt(max(discordant - delta**2, 0.0))
        return float(wanted - np.sqrt(images) * delta)

    if shortfall(discordant) > 0:
        return np.nan
    return float(brentq(shortfall, 0.0, discordant))


def detectable_rho(blocks: int, treatments: int, *, level: float = 0.05, power: float = 0.8) -> float:
    """The mean Spearman correlation that Page's test of as many blocks finds with ``power``.

    Without a trend a block's ρ has variance 1 / (k − 1), which is also taken for the alternative: a little
    cautious.

    Returns:
        In [0, 1]; NaN where even perfect correlation is not enough.
    """
    rho = _z(level, power) / np.sqrt(blocks * (treatments - 1))
    return float(rho) if rho <= 1 else np.nan


def detectable_lead(blocks: int, treatments: int, *, level: float = 0.05, power: float = 0.8) -> float:
    """The difference of two mean ranks that a two-sided test of as many blocks finds with ``power``, if blocks
    agree no more than by chance: two ranks of a block then differ by a number of variance k(k + 1) / 6 (Demšar
    2006, section 3.2.2)."""
    return float(_z(level, power) * np.sqrt(treatments * (treatments + 1) / (6 * blocks)))


def detectable_mean(cluster_means: ArrayLike, *, level: float = 0.05, power: float = 0.8) -> float:
    """The distance of a mean from a number that a two-sided t-test over clusters finds with ``power``: as
    :func:`detectable_shift`, with Student's quantiles for few clusters."""
    from scipy.stats import t

    means = np.asarray(cluster_means, dtype=np.float64)
    if len(means) < 2:
        return np.nan
    quantiles = t.isf([level / 2, 1 - power], len(means) - 1).sum()
    return float(quantiles * means.std(ddof=1) / np.sqrt(len(means)))


def _z(level: float, power: float) -> float:
    return float(ndtri(1 - level / 2) + ndtri(power))
