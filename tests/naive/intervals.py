"""Intervals of ratios, transcribed term by term with nothing but scalars."""

from __future__ import annotations

import math
from statistics import NormalDist

from scipy.optimize import brentq

Z = NormalDist().inv_cdf(0.975)


def bonett_price(n11: float, n10: float, n01: float) -> tuple[float, float]:
    """Bonett and Price (2006): Wilson intervals of both rates, at a level that makes their ratio's end right."""
    n = n11 + n10 + n01  # items on which neither happened do not enter
    x1, x2 = n11 + n10, n11 + n01
    a = math.sqrt((n10 + n01 + 2) / ((x1 + 1) * (x2 + 1)))
    b = math.sqrt((1 - (x1 + 1) / (n + 2)) / (x1 + 1))
    c = math.sqrt((1 - (x2 + 1) / (n + 2)) / (x2 + 1))
    z = a / (b + c) * Z

    def wilson(x: float) -> tuple[float, float]:
        p = x / n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return middle - reach, middle + reach

    (low1, high1), (low2, high2) = wilson(x1), wilson(x2)
    return low1 / high2, high1 / low2


def ratio_of_means(
    first: list[tuple[float, float, float]], second: list[tuple[float, float, float]], rho: list[float]
) -> tuple[float, float]:
    """The two R at which an end of the interval of Σ first − R Σ second is 0 (Zou and Donner 2008, equation 9),
    found by bisection; strata are (value, low, high)."""

    def lower(r: float) -> float:
        gap = sum(a[0] for a in first) - r * sum(b[0] for b in second)
        reach = sum(
            (a[0] - a[1]) ** 2 - 2 * c * (a[0] - a[1]) * r * (b[2] - b[0]) + (r * (b[2] - b[0])) ** 2
            for a, b, c in zip(first, second, rho, strict=True)
        )
        return gap - math.sqrt(reach)

    def upper(r: float) -> float:
        gap = sum(a[0] for a in first) - r * sum(b[0] for b in second)
        reach = sum(
            (a[2] - a[0]) ** 2 - 2 * c * (a[2] - a[0]) * r * (b[0] - b[1]) + (r * (b[0] - b[1])) ** 2
            for a, b, c in zip(first, second, rho, strict=True)
        )
        return gap + math.sqrt(reach)

    ratio = sum(a[0] for a in first) / sum(b[0] for b in second)
    return float(brentq(lower, 0, ratio)), float(brentq(upper, ratio, 1e6))
