"""The report's pictures, drawn with matplotlib onto axes: what exports write and `mergerisk.plots` shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk.report.accuracy import mean_accuracy
from mergerisk.report.cause_pictures import Scale, halves, marks_of
from mergerisk.report.curve_pictures import Curve, Point, budget_places
from mergerisk.report.formatting import budget
from mergerisk.report.measure_words import words_of
from mergerisk.report.naming import holder
from mergerisk.report.pareto import pareto_front
from mergerisk.report.price_picture import arrows
from mergerisk.report.risk import compared
from mergerisk.report.standing import bars, places, ticks
from mergerisk.study.fields.targets import ENSEMBLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes as Plot

    from mergerisk.report.prices import PriceList
    from mergerisk.report.view import View
    from mergerisk.statistics import Standings, Transfer

COLOURS = ("#0072b2", "#d0540a", "#00825f", "#b0408a", "#8d6b00", "#3a8fc0", "#4b3bb3", "#8f2043")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "d")
REFERENCE = "#59616b"
# no name is ever read as mathematics, and text becomes outlines: a picture needs no font
STYLE: dict[str, Any] = {
    "text.parse_math": False, "svg.fonttype": "path", "svg.hashsalt": "mergerisk", "font.family": "DejaVu Sans",
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "lines.linewidth": 1.1, "savefig.dpi": 200,
}  # fmt: skip


def draw_cause(plot: Plot, view: View, measure: str) -> None:
    """A measure against ε50 under the worst attacker: one mark per task and method, null lines as crosses."""
    found = view.summary.explanations
    assert found is not None
    marks = marks_of(found, found.worst, measure)
    scale = Scale.of(marks, view.axes.epsilons, halves(marks, ()))
    for series, name in [(None, "null line"), *enumerate(found.worst.methods)]:
        own = [mark for mark in marks if mark.series == series]
        style = (
            {"color": REFERENCE, "marker": "x", "markersize": 4}
            if series is None
            else _style_of(view, name) | {"markersize": 4.5}
        )
        if own:
            at = [min(max(mark.y, scale.least), scale.most) for mark in own]
            plot.plot([mark.x for mark in own], at, **style | {"linestyle": "none"}, label=name)
    if scale.log:
        plot.set_xscale("log")
    plot.set_yscale("log")
    ticks_ = [(value, text) for value, text in scale.budgets() if scale.least <= value <= scale.most]
    plot.set_yticks([value for value, _ in ticks_], [text for _, text in ticks_])
    plot.minorticks_off()
    plot.set_xlabel(words_of(measure).title)
    plot.set_ylabel("ε50; beyond the measured budgets at the edge")
    _grid(plot)


def _style_of(view: View, target: str) -> dict[str, Any]:
    """Colour, mark and dash of a target: no line rests on colour alone."""
    if target not in view.axes.methods:
        dashes = {"pretrained": ":", ENSEMBLE: "-."}
        return {"color": REFERENCE, "marker": ".", "linestyle": dashes.get(target, "--")}
    return _style_at(view.axes.methods.index(target))


def _style_at(place: int) -> dict[str, Any]:
    """Colour, mark and dash of the first, second, … of what is told apart."""
    later = place >= len(COLOURS)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKS[place % len(MARKS)],
        "linestyle": (0, (5, 2)) if later else "-",
        "markerfacecolor": "white" if later else COLOURS[place % len(COLOURS)],
    }


def draw_risk_against_accuracy(plot: Plot, view: View, surrogate: str) -> None:
    """Clean accuracy against relative ASR, with intervals and the Pareto front."""
    accuracies = mean_accuracy(view.summary.accuracy, view.axes)
    relative = compared(view.risks[surrogate, view.epsilon, "relative"], view.axes, surrogate)
    points = {
        name: (100 * accuracies[name].value, 100 * mean.value)
        for name, mean in relative.items()
        if not math.isnan(accuracies[name].value)
    }
    for name, (x, y) in points.items():
        style = _style_of(view, name) | {"linestyle": "none"}
        a, r = accuracies[name], relative[name]
        known = [value for value in (a.low, a.high, r.low, r.high) if not math.isnan(value)]
        bars_ = (
            {"xerr": [[x - 100 * a.low], [100 * a.high - x]], "yerr": [[y - 100 * r.low], [100 * r.high - y]]}
            if len(known) == 4
            else {}
        )
        plot.errorbar([x], [y], markersize=5, elinewidth=0.7, label=name, **style, **bars_)  # type: ignore[arg-type]
    front = [points[name] for name in pareto_front(points)]
    if len(front) > 1:
        plot.plot(*zip(*front, strict=True), color=REFERENCE, linestyle=(0, (4, 3)), linewidth=0.9, zorder=0,
                  label="Pareto front")  # fmt: skip
    plot.set_xlabel("mean clean accuracy, %")
    plot.set_ylabel(
        f"relative ASR (ratio of means), %\nattacks made on {holder(surrogate)}, ε = {budget(view.epsilon)}"
    )
    _grid(plot)


def draw_curves(plot: Plot, view: View, surrogate: str, task: str) -> None:
    """ASR on one task against the budget, with 95 % bands."""
    here = view.cells[(view.cells["surrogate"] == surrogate) & (view.cells["attack"] == view.attack)]
    here = here[here["task"] == task]
    at = dict(zip(view.axes.epsilons, budget_places(view.axes.epsilons), strict=True))
    for target in view.axes.targets:
        rows = here[here["target"] == target].sort_values("epsilon")
        columns = (rows[name].tolist() for name in ("epsilon", "asr", "asr_low", "asr_high"))
        curve = Curve.of(Point(at[epsilon], *rates) for epsilon, *rates in zip(*columns, strict=True))
        _draw_curve(plot, curve, target, _style_of(view, target))
    _draw_budgets(plot, at.values(), [f"{255 * value:.3g}" for value in at])
    plot.set_title(shortened(task, 28), fontsize=8)


def draw_transfers(plot: Plot, found: Mapping[str, Transfer]) -> None:
    """ASR against the budget of what was measured on several targets, with 95 % bands; budgets in one norm."""
    norms = {one.norm for one in found.values()}
    epsilons = sorted({epsilon for one in found.values() for epsilon in one.epsilons})
    at = dict(zip(epsilons, budget_places(epsilons), strict=True))
    for place, (name, one) in enumerate(found.items()):
        rates = [(epsilon, one.asr(epsilon)) for epsilon in one.epsilons]
        points = (Point(at[epsilon], rate.value, rate.low, rate.high) for epsilon, rate in rates)
        _draw_curve(plot, Curve.of(points), name, _style_at(place))
    linf = norms == {"linf"}
    _draw_budgets(plot, at.values(), [f"{255 * value:.3g}" if linf else f"{value:.3g}" for value in at])
    plot.set_xlabel("ε (/255)" if linf else f"ε ({', '.join(norms)})")
    plot.set_ylabel("ASR, %")
    plot.legend(frameon=False)


def _draw_curve(plot: Plot, curve: Curve, name: str, style: Mapping[str, Any]) -> None:
    x, y = [point.place for point in curve.points], [100 * point.asr for point in curve.points]
    plot.plot(x, y, markersize=2.8, markeredgewidth=0.6, label=name, **style)
    band = curve.band
    plot.fill_between(
        [point.place for point in band],
        [100 * point.low for point in band],
        [100 * point.high for point in band],
        color=style["color"],
        alpha=0.12,
        linewidth=0,
    )


def _draw_budgets(plot: Plot, places: Iterable[float], names: Sequence[str]) -> None:
    """The axis of budgets, and half of the images as a line."""
    plot.axhline(50, color=REFERENCE, linewidth=0.5, linestyle=":")
    plot.set_ylim(-2, 102)
    plot.set_xticks([*places], names)


def heat_map_size(view: View) -> tuple[float, float]:
    """Width and height in inches at which its cells can be read."""
    columns = len(view.axes.tasks) * len(view.axes.attacks)
    return max(5.0, 0.21 * columns + 2.2), 0.24 * len(view.axes.targets) + 1.9


def draw_heat_map(plot: Plot, view: View, surrogate: str) -> None:
    """Relative ASR of every target, by task and attack; the surrogate's own 100 is white."""
    axes = view.axes
    columns = [(task, attack) for task in axes.tasks for attack in axes.attacks]
    here = view.cells[(view.cells["surrogate"] == surrogate) & (view.cells["epsilon"] == view.epsilon)]
    names = zip(here["target"], here["task"], here["attack"], strict=True)
    found = dict(zip(names, here["relative_asr"], strict=True))
    values = 100 * np.array([[found.get((t, *c), math.nan) for c in columns] for t in axes.targets], dtype=float)
    # the surrogate's own 100 is the middle: blue below it, red above
    figure = plot.get_figure(root=False)
    assert figure is not None
    image = plot.imshow(np.ma.masked_invalid(values), cmap="RdBu_r", vmin=0, vmax=200, aspect="auto")
    if len(columns) <= 60:
        for (row, column), value in np.ndenumerate(values):
            if not math.isnan(value):
                ink = "white" if not 30 < value < 170 else "black"
                plot.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=5, color=ink)
    plot.set_yticks(range(len(axes.targets)), [shortened(name, 34) for name in axes.targets])
    plot.set_xticks(range(len(columns)), [shortened(attack, 24) for _, attack in columns], rotation=90, fontsize=6)
    plot.tick_params(length=0)
    for side in plot.spines.values():
        side.set_visible(False)
    for place in range(1, len(axes.tasks)):
        plot.axvline(place * len(axes.attacks) - 0.5, color="white", linewidth=2.5)
    above = plot.secondary_xaxis("top")
    above.set_xticks(
        [(place + 0.5) * len(axes.attacks) - 0.5 for place in range(len(axes.tasks))],
        [shortened(task, 18) for task in axes.tasks],
    )
    above.tick_params(length=0)
    above.spines["top"].set_visible(False)
    figure.colorbar(image, ax=plot, label="relative ASR, %", pad=0.01, extend="max")


def standings_size(found: Standings) -> tuple[float, float]:
    """Width and height in inches at which its names can be read."""
    return 6.5, 1.1 + 0.22 * (max(place.row for place in places(found)) + 1)


def draw_standings(plot: Plot, found: Standings) -> None:
    """How the methods stand under the worst attacker; bars join those that cannot be told apart."""
    placed, drawn_bars, marks = places(found), bars(found), ticks(found)
    rows = max(place.row for place in placed) + 1
    depth = 0.5 + 0.3 * max((bar.row + 1 for bar in drawn_bars), default=0)
    first, last = marks[0], marks[-1]
    margin = 0.06 * (last - first)
    plot.set_xlim(first - margin, last + margin)
    plot.set_ylim(depth + 0.9 * rows, -2.4)
    plot.axis("off")
    plot.plot([first, last], [0, 0], color="black", linewidth=0.8)
    for mark in marks:
        plot.plot([mark, mark], [0, -0.25], color="black", linewidth=0.8)
        plot.text(mark, -0.4, f"{100 * mark:g}%", ha="center", va="bottom")
    plot.text(first, -1.6, "ASR under the worst attacker", ha="left", va="bottom")
    for place in placed:
        y = depth + 0.9 * place.row
        edge = first - margin if place.left else last + margin
        plot.plot([place.value, place.value, edge], [0, y, y], color=REFERENCE, linewidth=0.7)
        plot.plot([place.value], [0], "o", color=COLOURS[0], markersize=3.5)
        text = f"{shortened(place.name, 34)} {100 * place.value:.1f}%"
        plot.annotate(
            text, (edge, y), xytext=(-4 if place.left else 4, 0), textcoords="offset points",
            ha="right" if place.left else "left", va="center", annotation_clip=False,
        )  # fmt: skip
    for bar in drawn_bars:
        y = 0.4 + 0.3 * bar.row
        plot.plot(
            [bar.low - 0.05, bar.high + 0.05], [y, y], color=COLOURS[0], linewidth=2.5, solid_capstyle="round"
        )


def shortened(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def draw_prices(plot: Plot, found: PriceList) -> None:
    """Clean accuracy against ε50 under the worst attacker.

    A hollow mark is where those who do not know of the defense leave a model, a line leads from there to where the
    worst attacker does; a mark is full where every check passed, a cross where one failed, a diamond is what
    nothing defends.
    """
    low, high = found.epsilons[0] / 1.5, found.epsilons[-1] * 1.5
    for number, one in enumerate(arrows(found)):
        colour = COLOURS[number % len(COLOURS)]
        at = [min(max(value, low), high) for value in (one.worst, one.worst if one.ghost is None else one.ghost)]
        accuracy = 100 * one.accuracy
        if one.ghost is not None:
            plot.plot(at, [accuracy] * 2, color=colour, linewidth=0.9, linestyle=(0, (3, 2)))
            plot.plot(at[1:], [accuracy], marker="o", markersize=4.5, color=colour, markerfacecolor="white")
        mark = {None: "D", True: "o", False: "X"}[one.passed]
        plot.plot(at[:1], [accuracy], marker=mark, markersize=5, linestyle="none", color=colour, label=one.name)
    plot.set_xscale("log")
    plot.set_xlim(low, high)
    plot.set_xticks([*found.epsilons], [f"{255 * value:.3g}" for value in found.epsilons])
    plot.minorticks_off()
    plot.set_xlabel("ε50 under the worst attacker (/255); beyond the measured budgets at the edge")
    plot.set_ylabel("mean clean accuracy, %")
    _grid(plot)


def _grid(plot: Plot) -> None:
    """Lines behind what is drawn, and the names beside it."""
    plot.grid(color="#e2e4e7", linewidth=0.5)
    plot.set_axisbelow(True)
    plot.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
