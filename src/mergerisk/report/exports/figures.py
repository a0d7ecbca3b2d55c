"""The report's pictures for papers, drawn with matplotlib: the same bytes for the same summary and version."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from markupsafe import escape

from mergerisk.report.cause_pictures import marks_of
from mergerisk.report.cause_words import different
from mergerisk.report.causes_view import SHOWN
from mergerisk.report.exports.drawing import (
    STYLE,
    draw_cause,
    draw_curves,
    draw_heat_map,
    draw_prices,
    draw_risk_against_accuracy,
    draw_standings,
    heat_map_size,
    standings_size,
)
from mergerisk.report.exports.query_curves import draw_query_curves, query_curves
from mergerisk.report.formatting import budget
from mergerisk.report.measure_words import words_of
from mergerisk.report.naming import holder
from mergerisk.report.price_picture import arrows
from mergerisk.report.risk import compared
from mergerisk.report.standing import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure

    from mergerisk.report.view import View


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
                _alone(draw_risk_against_accuracy, view, surrogate),
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
                _alone(draw_heat_map, view, surrogate, size=heat_map_size(view)),
            )
        if asked := query_curves(view.summary, surrogate):
            yield Picture(
                f"queries{tail}",
                f"ASR against queries from images made on {holder(surrogate)} on",
                _alone(draw_query_curves, asked),
            )
    standing = view.standing
    if standing is not None and len(standing.methods) > 1:
        yield Picture(
            "standings", in_words(standing), _alone(draw_standings, standing, size=standings_size(standing))
        )
    yield from _causes(view)
    if view.summary.prices is not None and arrows(view.summary.prices):
        title = "Clean accuracy against the budget that fools half under the worst attacker"
        yield Picture("prices", title, _alone(draw_prices, view.summary.prices))


def _causes(view: View) -> Iterator[Picture]:
    """The measures that the page shows first, against ε50."""
    found = view.summary.explanations
    for one in different(found.worst.measures)[:SHOWN] if found else ():
        if found and marks_of(found, found.worst, one.measure):
            yield Picture(
                f"cause{next(iter(_tails([one.measure]).values()))}",
                f"{words_of(one.measure).title} against ε50, one point per task and method",
                _alone(draw_cause, view, one.measure),
            )


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


def _alone(
    draw: Callable[..., None], *given: object, size: tuple[float, float] | None = None
) -> Callable[[Figure], None]:
    """What draws onto axes as what draws onto a figure that has no others."""

    def onto(figure: Figure) -> None:
        if size is not None:
            figure.set_size_inches(*size)
        draw(figure.subplots(), *given)

    return onto


def curve_panels(figure: Figure, count: int) -> list[Plot]:
    """Axes for as many tasks, of one scale, in rows of four; the figure grows as they need."""
    columns = min(4, max(1, count))
    rows = -(-count // columns) or 1
    figure.set_size_inches(2.1 * columns + 0.5, 1.75 * rows + 0.7)
    plots = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for plot in plots.flat[count:]:
        plot.set_visible(False)
    for column in range(columns):
        shown = [row for row in range(rows) if row * columns + column < count]
        if shown:
            plots[shown[-1], column].tick_params(labelbottom=True)
            plots[shown[-1], column].set_xlabel("ε (/255)")
    for row in range(rows):
        plots[row, 0].set_ylabel("ASR, %")
    return list(plots.flat[:count])


def curve_legend(figure: Figure, plot: Plot) -> None:
    """The names of all panels' lines, below them."""
    lines, labels = plot.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=min(4, len(labels) or 1), frameon=False)


def _curves(figure: Figure, view: View, surrogate: str) -> None:
    """ASR against the budget, a panel per task."""
    plots = curve_panels(figure, len(view.axes.tasks))
    for plot, task in zip(plots, view.axes.tasks, strict=True):
        draw_curves(plot, view, surrogate, task)
    if plots:
        curve_legend(figure, plots[0])
