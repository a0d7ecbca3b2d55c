"""The report's pictures for papers and notebooks: each takes a result and matplotlib axes, and gives them back.

``mergerisk.plots.heat_map("runs/starter").figure.savefig("heat_map.pdf")`` is a figure for a paper in one line.
Without axes, a figure of a size that suits is made. Colours and marks are the report's: a method has the same in
every picture of a study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mergerisk.errors import UserError, did_you_mean
from mergerisk.report.exports import drawing, figures
from mergerisk.report.formatting import budget, listing
from mergerisk.report.price_picture import arrows
from mergerisk.report.risk import compared
from mergerisk.report.view import View, view_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from matplotlib.axes import Axes

    from mergerisk.api import StudyResult
    from mergerisk.statistics import Transfer

__all__ = ["causes", "critical_differences", "curves", "heat_map", "prices", "risk_against_accuracy", "transfer"]


def risk_against_accuracy(
    result: StudyResult | str | Path,
    ax: Axes | None = None,
    *,
    surrogate: str | None = None,
    epsilon: float | None = None,
) -> Axes:
    """Clean accuracy against relative ASR, both in percent, with 95 % intervals and the Pareto front.

    Args:
        result: of :func:`mergerisk.run`, or the folder of a finished run.
        ax: what is drawn onto; a new figure's by default.
        surrogate: whose attacks; by default the study's first.
        epsilon: a budget of the study, in pixel units; by default the one that the report speaks of first.

    Raises:
        UserError: the study has no such surrogate or budget, or nothing to draw.
    """
    view = _view(result, surrogate=surrogate, epsilon=epsilon)
    if not compared(view.risks.get((view.surrogate, view.epsilon, "relative"), {}), view.axes, view.surrogate):
        raise UserError(f"there is no relative ASR of attacks made on {view.surrogate} at {budget(view.epsilon)}")
    with _axes(ax) as plot:
        drawing.draw_risk_against_accuracy(plot, view, view.surrogate)
    return plot


def curves(
    result: StudyResult | str | Path,
    axes: Axes | Iterable[Axes] | None = None,
    *,
    tasks: Sequence[str] | None = None,
    surrogate: str | None = None,
    attack: str | None = None,
) -> list[Axes]:
    """ASR in percent against the budget in 1/255, with 95 % bands: a panel for every task.

    Args:
        result: of :func:`mergerisk.run`, or the folder of a finished run.
        axes: what is drawn onto, one for every task; those of a new figure by default, with a legend below.
        tasks: which; all by default.
        surrogate: whose attacks; by default the study's first.
        attack: which; by default the strongest.

    Raises:
        UserError: the study has no such task, surrogate or attack, or another number of axes than of tasks.
    """
    view = _view(result, surrogate=surrogate, attack=attack)
    chosen = tuple(_known(task, view.axes.tasks, "task") for task in tasks or view.axes.tasks)
    if axes is not None:
        plots = [cast("Axes", axes)] if hasattr(axes, "plot") else [*axes]
        if len(plots) != len(chosen):
            raise UserError(f"curves of {len(chosen)} tasks need as many axes, got {len(plots)}")
        with _style():
            for plot, task in zip(plots, chosen, strict=True):
                drawing.draw_curves(plot, view, view.surrogate, task)
        return plots
    with _new_figure() as figure:
        plots = figures.curve_panels(figure, len(chosen))
        for plot, task in zip(plots, chosen, strict=True):
            drawing.draw_curves(plot, view, view.surrogate, task)
        figures.curve_legend(figure, plots[0])
    return plots


def heat_map(
    result: StudyResult | str | Path,
    ax: Axes | None = None,
    *,
    surrogate: str | None = None,
    epsilon: float | None = None,
) -> Axes:
    """Relative ASR in percent of every target, by task and attack; blue below the surrogate's own 100, red above.

    Arguments and errors are those of :func:`risk_against_accuracy`.
    """
    view = _view(result, surrogate=surrogate, epsilon=epsilon)
    with _axes(ax, drawing.heat_map_size(view)) as plot:
        drawing.draw_heat_map(plot, view, view.surrogate)
    return plot


def critical_differences(result: StudyResult | str | Path, ax: Axes | None = None) -> Axes:
    """ASR of every method under the worst attacker; a bar joins methods that cannot be told apart.

    Args:
        result: of :func:`mergerisk.run`, or the folder of a finished run.
        ax: what is drawn onto; a new figure's by default.

    Raises:
        UserError: fewer than two methods can be compared.
    """
    found = _view(result).standing
    if found is None or len(found.methods) < 2:
        raise UserError("fewer than two methods can be compared under the worst attacker")
    with _axes(ax, drawing.standings_size(found)) as plot:
        drawing.draw_standings(plot, found)
    return plot


def causes(result: StudyResult | str | Path, ax: Axes | None = None, *, measure: str | None = None) -> Axes:
    """A measure that may explain transfer against ε50: one mark per task and method, null lines as crosses.

    Args:
        result: of a study with ``causes``, or the folder of its run.
        ax: what is drawn onto; a new figure's by default.
        measure: column of a diagnostic; by default the one that goes with ε50 most.

    Raises:
        UserError: the study asked for no diagnostics, or there is no such measure.
    """
    view = _view(result)
    found = view.summary.explanations
    if found is None:
        raise UserError(
            "the study asked for no diagnostics; add causes: [gradient_alignment] to it and run it again"
        )
    measures = [one.measure for one in found.worst.measures]
    chosen = measures[0] if measure is None else _known(measure, measures, "measure")
    with _axes(ax) as plot:
        drawing.draw_cause(plot, view, chosen)
    return plot


def prices(result: StudyResult | str | Path, ax: Axes | None = None) -> Axes:
    """What defenses cost and gain: clean accuracy in percent against ε50 under the worst attacker, and under those
    who do not know of the defense.

    Args:
        result: of a study with ``defenses``, or the folder of its run.
        ax: what is drawn onto; a new figure's by default.

    Raises:
        UserError: nothing in the study is defended, or none of it could be priced.
    """
    found = _view(result).summary.prices
    if found is None or not arrows(found):
        raise UserError("nothing in the study is defended; add defenses: [{defense: jpeg, of: MERGE}] to it")
    with _axes(ax) as plot:
        drawing.draw_prices(plot, found)
    return plot


def transfer(found: Transfer | Mapping[str, Transfer], ax: Axes | None = None) -> Axes:
    """ASR in percent against the budget of what was measured without a study, with 95 % bands: a line per target.

    Args:
        found: of :func:`mergerisk.measure_transfers`, or one of :func:`mergerisk.measure_transfer`.
        ax: what is drawn onto; a new figure's by default.

    Raises:
        UserError: there is nothing to draw, or the budgets are in different norms.
    """
    several = found if isinstance(found, Mapping) else {"target": found}
    norms = {one.norm for one in several.values()}
    if len(norms) != 1:
        raise UserError(
            f"budgets in {listing(sorted(norms))} do not stand on one axis; draw each by itself"
            if norms
            else "there is nothing to draw; give what measure_transfers returns"
        )
    with _axes(ax, (4, 2.8)) as plot:
        drawing.draw_transfers(plot, several)
    return plot


def _view(
    result: StudyResult | str | Path,
    *,
    surrogate: str | None = None,
    epsilon: float | None = None,
    attack: str | None = None,
) -> View:
    """What there is to draw, with what is asked for spoken of first."""
    if isinstance(result, str | Path):
        from mergerisk.api import load_run

        result = load_run(result)
    view = view_of(result.summary)
    changes: dict[str, Any] = {}
    if surrogate is not None:
        changes["surrogate"] = _known(surrogate, view.axes.surrogates, "surrogate")
    if attack is not None:
        changes["attack"] = _known(attack, view.axes.attacks, "attack")
    if epsilon is not None:
        near = [one for one in view.axes.epsilons if math.isclose(one, epsilon, rel_tol=1e-6)]
        if not near:
            raise UserError(
                f"no budget {budget(epsilon)}; there are {listing([*map(budget, view.axes.epsilons)])}"
            )
        changes["epsilon"] = near[0]
    return replace(view, **changes) if changes else view


def _known(name: str, names: Sequence[str], what: str) -> str:
    if name not in names:
        raise UserError(f"no {what} {name!r} in the study{did_you_mean(name, names)}")
    return name


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(cast("Any", drawing.STYLE)):
        yield


@contextmanager
def _new_figure(size: tuple[float, float] = (6.5, 4)) -> Iterator[Any]:
    """A figure that notebooks show and ``plt.show`` finds."""
    import matplotlib.pyplot as plt

    # Made outside of the style: the first figure of a notebook chooses how figures are shown, for good.
    figure = plt.figure(figsize=size, layout="constrained", facecolor="white")
    with _style():
        yield figure


@contextmanager
def _axes(ax: Axes | None, size: tuple[float, float] = (6.5, 4)) -> Iterator[Axes]:
    """The axes that were given, or new ones."""
    if ax is not None:
        with _style():
            yield ax
        return
    with _new_figure(size) as figure:
        yield figure.subplots()
