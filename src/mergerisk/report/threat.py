"""Every model under its worst attacker, as rows: what terminals print and the page's first picture shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.epsilon50 import epsilon50_text
from mergerisk.report.formatting import MISSING, budget, interval, percent, ratio
from mergerisk.report.naming import holder, model_name
from mergerisk.report.pareto import pareto_front
from mergerisk.report.risk import Mean, mean_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from mergerisk.report.view import View
    from mergerisk.report.worst import WorstAttacker

TOPS = {0.1: 5, 0.25: 5, 0.5: 5, 0.75: 3, 1.0: 4}
"""Where the picture's axis may end, and in how many steps it is divided."""


@dataclass(frozen=True)
class Threat:
    """One model, as shown: figures with their intervals, a dash where one is unknown.

    Attributes:
        model: its name, of ingredients in words.
        reference: whether it is an ingredient.
        asr: ``36.7%``.
        asr_interval: ``[33.3, 40.6]``, or empty.
        images: counted.
        epsilon50: with its interval.
        relative: relative ASR with its interval.
        attacker: in words.
        accuracy: clean.
        accuracy_interval: ``[86.5, 88.9]``, or empty.
        best: whether no other method is both safer and more accurate.
        at: where the bar ends, in percent of the axis; None if unknown; likewise
        low: its interval, and
        high: the upper end.
    """

    model: str
    reference: bool
    asr: str
    asr_interval: str
    images: int
    epsilon50: str
    relative: str
    attacker: str
    accuracy: str
    accuracy_interval: str
    best: bool
    at: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(
        cls,
        name: str,
        asr: Mean,
        images: int,
        epsilon50: str,
        relative: str,
        attacker: str,
        accuracy: Mean,
        *,
        top: float = 1.0,
        reference: bool = False,
        best: bool = False,
        **more: object,
    ) -> Self:
        """A model as it is shown.

        Args:
            name: of the model.
            asr: NaN where unknown.
            images: counted.
            epsilon50: in words.
            relative: likewise.
            attacker: likewise.
            accuracy: clean.
            top: where the axis ends, as a share.
            reference: whether it is an ingredient.
            best: whether no other method is both safer and more accurate.
            more: fields of a subclass.
        """

        def at(value: float) -> float | None:
            return None if math.isnan(value) else round(100 * min(1.0, value / top), 2)

        return cls(
            model=model_name(name),
            reference=reference,
            asr=percent(asr.value, 1),
            asr_interval=interval(asr.low, asr.high, 1),
            images=images,
            epsilon50=epsilon50,
            relative=relative,
            attacker=attacker,
            accuracy=percent(accuracy.value, 1),
            accuracy_interval=interval(accuracy.low, accuracy.high, 1),
            best=best,
            at=at(asr.value),
            low=at(asr.low),
            high=at(asr.high),
            **more,
        )


@dataclass(frozen=True)
class ThreatPicture:
    """Rows, safest method first and then the ingredients, on one axis.

    Attributes:
        rows: those of methods, then those of ingredients and lines of reference.
        ticks: places on the axis, in percent of it, and what stands there.
        marks: ASRs of ingredients, on the axis, as lines through all rows; with the ingredient's row.
    """

    rows: tuple[Threat, ...]
    ticks: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]


def threat_picture(view: View) -> ThreatPicture | None:
    """The first picture of the page; None where no ASR is known."""
    if not view.worst:
        return None
    axes, worst = view.axes, view.worst
    ends = [found.asr.value for found in worst.values()]
    ends += [found.asr.high for found in worst.values() if not math.isnan(found.asr.high)]
    top = next((top for top in TOPS if top >= max(ends)), 1.0)
    methods = sorted(
        axes.methods, key=lambda name: round(worst[name].asr.value, 12) if name in worst else math.inf
    )
    points = {name: (view.accuracies[name].value, worst[name].asr.value) for name in methods if name in worst}
    front = set(pareto_front(points)) if len(points) > 1 else set()
    wanted = ("expert", "pretrained", *view.summary.run.references)
    references = [name for name in wanted if name in axes.targets]
    rows = tuple(
        _row(name, worst.get(name), view.accuracies[name], axes.epsilons, top, name in references, name in front)
        for name in (*methods, *references)
    )
    ticks = tuple((round(100 * i / TOPS[top], 2), percent(top * i / TOPS[top])) for i in range(TOPS[top] + 1))
    marks = tuple(
        (min(100.0, round(100 * worst[name].asr.value / top, 2)), model_name(name))
        for name in references
        if name in worst
    )
    return ThreatPicture(rows, ticks, marks)


def _row(
    name: str,
    found: WorstAttacker | None,
    accuracy: Mean,
    epsilons: Sequence[float],
    top: float,
    reference: bool,
    best: bool,
) -> Threat:
    """A target's bar, with dashes where nothing is known of it."""
    _, half, relative, attacker = threat_cells(found, epsilons)
    unknown = Mean(math.nan, math.nan, math.nan, 0)
    return Threat.of(
        name,
        unknown if found is None else found.asr,
        0 if found is None else found.images,
        half,
        relative,
        MISSING if found is None else holder(attacker),
        accuracy,
        top=top,
        reference=reference,
        best=best,
    )


def threat_cells(found: WorstAttacker | None, epsilons: Sequence[float]) -> tuple[str, str, str, str]:
    """ASR with interval and images, ε50, relative ASR and the worst attacker's label; dashes where unknown."""
    if found is None:
        return MISSING, MISSING, MISSING, MISSING
    half = MISSING
    if found.epsilon50 is not None:
        value, low, high = (
            epsilon50_text(number, epsilons)
            for number in (found.epsilon50.value, found.epsilon50.low or -math.inf, found.epsilon50.high)
        )
        half = f"{value} [{low}, {high}]" if math.isfinite(found.epsilon50.value) else value
    relative = ratio(found.relative.value, found.relative.low, found.relative.high)
    return f"{mean_text(found.asr)} of {found.images}", half, relative, found.surrogate


def threat_rows(view: View) -> list[tuple[str, ...]]:
    """Every model under its worst attacker, as text; the titles first, then the ingredients, then the methods."""
    axes = view.axes
    references = [name for name in axes.targets if name not in axes.methods]
    title = ("model", f"ASR at {budget(view.epsilon)}", "ε50", "relative ASR", "worst attacker", "clean accuracy")
    rows = [
        (name, *threat_cells(view.worst.get(name), axes.epsilons), mean_text(view.accuracies[name]))
        for name in (*references, *axes.methods)
    ]
    return [title, *rows]
