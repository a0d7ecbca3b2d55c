"""How success rises with the queries that are asked from transferred images on, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mergerisk.report.exports.drawing import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from numpy.typing import NDArray

    from mergerisk.report.summary import Summary

_DASHES = ("-", "--", ":", "-.")


class QueryCurve(NamedTuple):
    """One target, asked by one search.

    Attributes:
        target: who is asked.
        search: how.
        rates: after 1, 2, … queries, the share of images that are fooled, of those that the target names rightly
            when clean; of all tasks, attacks and seeds together.
    """

    target: str
    search: str
    rates: NDArray[np.float64]


def query_curves(summary: Summary, surrogate: str) -> list[QueryCurve]:
    """Those of images crafted on one surrogate; none of a study that asks for no ``queries``."""
    tables = [kept.rows for kept in summary.further if kept.declared.name == "queries"]
    if not tables or tables[0].empty:
        return []
    known = tables[0].dropna(subset="queries")
    most = int(known["queries"].max()) if len(known) else 0
    own = known[known["surrogate"] == surrogate]
    return [
        QueryCurve(
            str(target),
            str(search),
            np.array([(group["queries_to_fool"] <= count).mean() for count in range(1, most + 1)]),
        )
        for (target, search), group in own.groupby(["target", "search"], observed=True, sort=False)
    ]


def draw_query_curves(plot: Plot, curves: list[QueryCurve]) -> None:
    """ASR in percent against queries: a colour per target, a dash per search."""
    targets, searches = (list(dict.fromkeys(names)) for names in zip(*(c[:2] for c in curves), strict=True))
    for curve in curves:
        plot.step(
            np.arange(1, len(curve.rates) + 1),
            100 * curve.rates,
            where="post",
            color=COLOURS[targets.index(curve.target) % len(COLOURS)],
            linestyle=_DASHES[searches.index(curve.search) % len(_DASHES)],
            label=f"{curve.target}, {curve.search}",
        )
    plot.set_xlabel("queries per image, the first is the transferred image")
    plot.set_ylabel("ASR, %")
    plot.set_ylim(0, 100)
    plot.legend(frameon=False)
