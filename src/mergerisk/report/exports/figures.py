"""The report's pictures for papers, drawn with matplotlib: the same bytes for the same summary and version."""

from __future__ import annotations

import io
import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from markupsafe import escape

from mergerisk.report.accuracy import mean_accuracy
from mergerisk.report.cause_pictures import Scale, halves, marks_of
from mergerisk.report.cause_words import different
from mergerisk.report.causes_view import SHOWN
from mergerisk.report.curve_pictures import Curve, Point, budget_places
from mergerisk.report.formatting import budget
from mergerisk.report.measure_words import words_of
from mergerisk.report.naming import holder
from mergerisk.report.pareto import pareto_front
from mergerisk.report.risk import compared
from mergerisk.report.standing import bars, in_words, places, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

    from mergerisk.report.cause_pictures import Mark
    from mergerisk.report.view import View
    from mergerisk.statistics import Standings

COLOURS = ("#0072b2", "#d0540a", "#00825f", "#b0408a", "#8d6b00", "#3a8fc0", "#4b3bb3", "#8f2043")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "d")
REFERENCE = "#59616b"
# no name is ever read as mathematics, and text becomes outlines: a picture needs no font
STYLE: dict[str, Any] = {
    "text.parse_math": False, "svg.fonttype": "path", "svg.hashsalt": "mergerisk", "font.family": "DejaVu Sans",
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "lines.linewidth": 1.1, "savefig.dpi": 200,
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A picture that can be drawn.

    Attributes:
        name: of its file, without ending.
        title: what it shows, in a sentence.
        draw: onto an empty figure.
    """

    name: str
    title: str
    draw: Callable[[Figure], None]


def pictures(view: View) -> Iterator[Picture]:
    """Those the summary has figures for; per surrogate, the budget and the attack the report speaks of first."""
    at = f"ε = {budget(view.epsilon)}"
    tails = _tails(view.axes.surrogates)
    for surrogate in view.axes.surrogates:
        means = compared(view.risks.get((surrogate, view.epsilon, "relative"), {}), view.axes, surrogate)
        tail = tails[surrogate]
        if means:
            yield Picture(
                f"accuracy_against_risk{tail}",
                f"Clean accuracy against relative ASR of attacks made on {holder(surrogate)} at {at}",
                lambda figure, s=surrogate: _tradeoff(figure, view, s),  # type: ignore[misc]
            )
        if (view.cells["surrogate"] == surrogate).any():
            yield Picture(
                f"curves{tail}",
                f"ASR against budget of {view.attack} made on {holder(surrogate)}, with 95% bands",
                lambda figure, s=surrogate: _curves(figure, view, s),  # type: ignore[misc]
            )
            yield Picture(
                f"heat_map{tail}",
                f"Relative ASR in percent of attacks made on {holder(surrogate)} at {at}",
                lambda figure, s=surrogate: _heat(figure, view, s),  # type: ignore[misc]
            )
    standing = view.standing
    if standing is not None and len(standing.methods) > 1:
        yield Picture("standings", in_words(standing), lambda figure: _standing(figure, standing))
    yield from _causes(view)


def _causes(view: View) -> Iterator[Picture]:
    """The measures that the page shows first, against ε50."""
    found = view.summary.explanations
    for one in different(found.worst.measures)[:SHOWN] if found else ():
        marks = marks_of(found, found.worst, one.measure) if found else ()
        if marks:
            yield Picture(
                f"cause{next(iter(_tails([one.measure]).values()))}",
                f"{words_of(one.measure).title} against ε50, one point per task and method",
                lambda figure, m=marks, name=one.measure: _cause(figure, view, m, name),  # type: ignore[misc]
            )


def _cause(figure: Figure, view: View, marks: Sequence[Mark], measure: str) -> None:
    """A measure against ε50: one mark per task and method, null lines as crosses."""
    plot = figure.subplots()
    found = view.summary.explanations
    assert found is not None
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
    plot.grid(color="#e2e4e7", linewidth=0.5)
    plot.set_axisbelow(True)
    plot.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _tails(surrogates: Iterable[str]) -> dict[str, str]:
    """How the names of a surrogate's pictures end: in its own, of which a file's name keeps letters and
    digits; ``expert/mnist`` is ``_expert-mnist``. Names that come to the same are numbered."""
    found: dict[str, str] = {}
    for surrogate in surrogates:
        plain = re.sub(r"[^A-Za-z0-9_.+]+", "-", surrogate).strip("-.")[:80] or "surrogate"
        tail, number = f"_{plain}", 2
        while tail.lower() in {other.lower() for other in found.values()}:  # some disks know no case
            tail, number = f"_{plain}-{number}", number + 1
        found[surrogate] = tail
    return found


def drawn(picture: Picture, kind: Literal["svg", "png"]) -> bytes:
    """The picture's file: SVG with title and description, or PNG at 200 dots per inch."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with mpl.rc_context(cast("Any", STYLE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script the font lacks
        figure = Figure(figsize=(6.5, 4), layout="constrained", facecolor="white")
        (FigureCanvasSVG if kind == "svg" else FigureCanvasAgg)(figure)
        picture.draw(figure)
        metadata: dict[str, Any] = (
            {"Date": None, "Creator": "mergerisk"} if kind == "svg" else {"Software": "mergerisk"}
        )
        figure.savefig(file, format=kind, metadata=metadata, bbox_inches="tight")
    return _titled(file.getvalue(), picture.title) if kind == "svg" else file.getvalue()


def _titled(svg: bytes, title: str) -> bytes:
    """With the title that a screen reader speaks, as the first thing in the picture."""
    head, mark, rest = svg.decode().partition("<svg ")
    attributes, end, body = rest.partition(">")
    label = f'\n <title id="title">{escape(title)}</title>'
    return f'{head}{mark}role="img" aria-labelledby="title" {attributes}{end}{label}{body}'.encode(
        "utf-8", "replace"
    )


def _style_of(view: View, target: str) -> dict[str, Any]:
    """Colour, mark and dash of a target: no line rests on colour alone."""
    if target not in view.axes.methods:
        return {"color": REFERENCE, "marker": ".", "linestyle": ":" if target == "pretrained" else "--"}
    place = view.axes.methods.index(target)
    later = place >= len(COLOURS)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKS[place % len(MARKS)],
        "linestyle": (0, (5, 2)) if later else "-",
        "markerfacecolor": "white" if later else COLOURS[place % len(COLOURS)],
    }


def _tradeoff(figure: Figure, view: View, surrogate: str) -> None:
    """Clean accuracy against relative ASR, with intervals and the Pareto front."""
    plot = figure.subplots()
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
    plot.grid(color="#e2e4e7", linewidth=0.5)
    plot.set_axisbelow(True)
    plot.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _curves(figure: Figure, view: View, surrogate: str) -> None:
    """ASR against the budget, a panel per task."""
    tasks = view.axes.tasks
    columns = min(4, max(1, len(tasks)))
    rows = -(-len(tasks) // columns) or 1
    figure.set_size_inches(2.1 * columns + 0.5, 1.75 * rows + 0.7)
    plots = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    here = view.cells[(view.cells["surrogate"] == surrogate) & (view.cells["attack"] == view.attack)]
    for plot, task in zip(plots.flat, tasks, strict=False):
        _panel(plot, view, here[here["task"] == task], task)
    for plot in plots.flat[len(tasks) :]:
        plot.set_visible(False)
    for column in range(columns):
        shown = [row for row in range(rows) if row * columns + column < len(tasks)]
        if shown:
            plots[shown[-1], column].tick_params(labelbottom=True)
            plots[shown[-1], column].set_xlabel("ε (/255)")
    for row in range(rows):
        plots[row, 0].set_ylabel("ASR, %")
    lines, labels = plots.flat[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=min(4, len(labels) or 1), frameon=False)


def _panel(plot: Plot, view: View, here: Any, task: str) -> None:
    """One task's curves, with 95 % bands."""
    at = dict(zip(view.axes.epsilons, budget_places(view.axes.epsilons), strict=True))
    for target in view.axes.targets:
        rows = here[here["target"] == target].sort_values("epsilon")
        columns = (rows[name].tolist() for name in ("epsilon", "asr", "asr_low", "asr_high"))
        curve = Curve.of(Point(at[epsilon], *rates) for epsilon, *rates in zip(*columns, strict=True))
        x, y = [point.place for point in curve.points], [100 * point.asr for point in curve.points]
        style = _style_of(view, target)
        plot.plot(x, y, markersize=2.8, markeredgewidth=0.6, label=target, **style)
        band = curve.band
        plot.fill_between(
            [point.place for point in band],
            [100 * point.low for point in band],
            [100 * point.high for point in band],
            color=style["color"],
            alpha=0.12,
            linewidth=0,
        )
    plot.axhline(50, color=REFERENCE, linewidth=0.5, linestyle=":")
    plot.set_title(_shortened(task, 28), fontsize=8)
    plot.set_ylim(-2, 102)
    plot.set_xticks([*at.values()], [f"{255 * value:.3g}" for value in at])


def _heat(figure: Figure, view: View, surrogate: str) -> None:
    """Relative ASR of every target, by task and attack; the surrogate's own 100 is white."""
    axes = view.axes
    columns = [(task, attack) for task in axes.tasks for attack in axes.attacks]
    here = view.cells[(view.cells["surrogate"] == surrogate) & (view.cells["epsilon"] == view.epsilon)]
    names = zip(here["target"], here["task"], here["attack"], strict=True)
    found = dict(zip(names, here["relative_asr"], strict=True))
    values = 100 * np.array([[found.get((t, *c), math.nan) for c in columns] for t in axes.targets], dtype=float)
    figure.set_size_inches(max(5.0, 0.21 * len(columns) + 2.2), 0.24 * len(axes.targets) + 1.9)
    plot = figure.subplots()
    # the surrogate's own 100 is the middle: blue below it, red above
    image = plot.imshow(np.ma.masked_invalid(values), cmap="RdBu_r", vmin=0, vmax=200, aspect="auto")
    if len(columns) <= 60:
        for (row, column), value in np.ndenumerate(values):
            if not math.isnan(value):
                ink = "white" if not 30 < value < 170 else "black"
                plot.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=5, color=ink)
    plot.set_yticks(range(len(axes.targets)), [_shortened(name, 34) for name in axes.targets])
    plot.set_xticks(
        range(len(columns)), [_shortened(attack, 24) for _, attack in columns], rotation=90, fontsize=6
    )
    plot.tick_params(length=0)
    for side in plot.spines.values():
        side.set_visible(False)
    for place in range(1, len(axes.tasks)):
        plot.axvline(place * len(axes.attacks) - 0.5, color="white", linewidth=2.5)
    above = plot.secondary_xaxis("top")
    above.set_xticks(
        [(place + 0.5) * len(axes.attacks) - 0.5 for place in range(len(axes.tasks))],
        [_shortened(task, 18) for task in axes.tasks],
    )
    above.tick_params(length=0)
    above.spines["top"].set_visible(False)
    figure.colorbar(image, ax=plot, label="relative ASR, %", pad=0.01, extend="max")


def _standing(figure: Figure, found: Standings) -> None:
    """How the methods stand under the worst attacker; bars join those that cannot be told apart."""
    placed, drawn_bars, marks = places(found), bars(found), ticks(found)
    rows = max(place.row for place in placed) + 1
    depth = 0.5 + 0.3 * max((bar.row + 1 for bar in drawn_bars), default=0)
    figure.set_size_inches(6.5, 1.1 + 0.22 * rows)
    plot = figure.subplots()
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
        text = f"{_shortened(place.name, 34)} {100 * place.value:.1f}%"
        plot.annotate(
            text, (edge, y), xytext=(-4 if place.left else 4, 0), textcoords="offset points",
            ha="right" if place.left else "left", va="center", annotation_clip=False,
        )  # fmt: skip
    for bar in drawn_bars:
        y = 0.4 + 0.3 * bar.row
        plot.plot(
            [bar.low - 0.05, bar.high + 0.05], [y, y], color=COLOURS[0], linewidth=2.5, solid_capstyle="round"
        )


def _shortened(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
