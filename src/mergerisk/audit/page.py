"""A verdict as one page of HTML that needs nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from markupsafe import Markup

from mergerisk.audit.gate_results import try_gate
from mergerisk.audit.sentences import (
    WHITE_BOX,
    banner,
    beside,
    beside_made_of,
    findings,
    headline,
    made_of,
    told_of,
)
from mergerisk.audit.sentences import safer_than_ingredients as safer
from mergerisk.audit.writing import audited_table, bounded, circumstances, surrogate_row, surrogate_rows
from mergerisk.provenance import versions
from mergerisk.report.answers import how_compared
from mergerisk.report.curve_pictures import Curve, Frame, Point, budget_places
from mergerisk.report.formatting import budget, interval, listing, percent, plural, with_interval
from mergerisk.report.naming import change, holder
from mergerisk.report.price_words import COLUMNS
from mergerisk.report.prices_view import prices_view
from mergerisk.report.risk import Mean
from mergerisk.report.templating import environment, template
from mergerisk.report.threat import Threat

if TYPE_CHECKING:
    from mergerisk.audit.readings import ModelVerdict
    from mergerisk.audit.verdict import Verdict

_WIDTH, _HEIGHT = 520, 280
_FRAME = Frame(left=52, right=_WIDTH - 16, top=12, bottom=_HEIGHT - 44, margin=12)
_COLOURS = 8
"""Line colours of the style sheet; more surrogates repeat them with other marks."""
_MARKS = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "M-4 -4H4V4H-4Z", "M0 -5L5 4H-5Z", "M-5 0L0 -5L5 0L0 5Z")


@dataclass(frozen=True)
class Line:
    """One surrogate's curve of ASR against ε, in the picture's units.

    Attributes:
        name: the surrogate.
        colour: index into the style sheet's.
        white_box: whether it is the model itself: dashed, its marks hollow.
        worst: whether it is the worst attacker's: drawn thicker, with its band.
        path: through the measured budgets.
        band: between the ends of the intervals.
        marks: where they were measured: x, y and what is said there.
        mark: shape of a mark.
        height: ASR at the reference budget, by which the legend is ordered.
    """

    name: str
    colour: int
    white_box: bool
    worst: bool
    path: str
    band: str
    marks: tuple[tuple[float, float, str], ...]
    mark: str
    height: float


@dataclass(frozen=True)
class Bar(Threat):
    """One model under its worst attacker, as drawn, on an axis that ends at 100 %.

    Attributes:
        marks: what is said of it beside its name.
        failed: whether a gate fails on it.
    """

    marks: tuple[str, ...]
    failed: bool


def to_html(verdict: Verdict) -> str:
    """The page; names from outside are escaped."""
    style = template("answers.css") + _file("audit.css")
    subject = verdict.subject
    page = environment("audit.html.j2", _file("audit.html.j2")).get_template("audit.html.j2")
    return page.render(
        verdict=verdict,
        subject=subject,
        banner=banner(verdict),
        headline=headline(verdict, in_words=True),
        beside=beside(verdict),
        number=percent(told.asr) if (told := told_of(verdict)) is not None else "",
        safer=safer(verdict),
        beside_made_of=beside_made_of(verdict),
        compared=how_compared(verdict.standing, verdict.beside_ingredients),
        safest=_safest(verdict),
        findings=[said for said in findings(verdict) if said != made_of(verdict)],
        bars=_bars(verdict),
        limits=_limits(verdict),
        change=change(verdict.reference_epsilon, verdict.norm),
        surrogates=surrogate_rows(verdict, subject),
        prices=prices_view(verdict.prices),
        price_columns=COLUMNS,
        lines=_lines(verdict, subject),
        axes={
            "width": _WIDTH,
            "height": _HEIGHT,
            "left": _FRAME.left,
            "right": _FRAME.right,
            "bottom": _FRAME.bottom,
            "x": [
                (_FRAME.x(place), budget(epsilon))
                for place, epsilon in zip(budget_places(verdict.epsilons), verdict.epsilons, strict=True)
            ],
            "y": [(_FRAME.y(share), percent(share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        },
        white_box=WHITE_BOX if any(reading.white_box for reading in subject.readings) else "",
        audited=None
        if verdict.audited is None
        else {"said": circumstances(verdict.audited), "files": audited_table(verdict.audited)},
        base=verdict.base,
        bounded=bounded(verdict),
        version=(versions() if verdict.audited is None else verdict.audited.versions)["mergerisk"],
        style=Markup(style),  # the package's own
    )


def _file(name: str) -> str:
    return resources.files("mergerisk.audit").joinpath("templates", name).read_text(encoding="utf-8")


def _safest(verdict: Verdict) -> tuple[str, str]:
    """The safest for its accuracy and who cannot be told apart from it; empty where there is no choice."""
    if verdict.recommended is None or len(verdict.models) < 2:
        return "", ""
    model = verdict.model(verdict.recommended)
    worst, mean = model.worst, model.clean_accuracy
    assert worst is not None, "the safest was attacked"
    said = (
        f"Fooled on {with_interval(worst.asr, worst.asr_low, worst.asr_high, 1)} of "
        f"{plural(worst.images_both_correct, 'image')}; clean accuracy {percent(mean.value, 1)} "
        f"{interval(mean.low, mean.high, 1)}."
    )
    alike = listing([holder(name) for name in verdict.as_safe])
    others = (
        f"It cannot be told apart from {alike}." if verdict.as_safe else "It can be told apart from every other."
    )
    if len(verdict.compared) < 2:
        others = f"No other is within {100 * verdict.tolerance:g} points of the best."
    return holder(model.name), " ".join([said, others, *_would_pass(verdict, model)])


def _would_pass(verdict: Verdict, model: ModelVerdict) -> list[str]:
    """Whether what is advised instead of the model to be released would pass the gates: a sentence, or none."""
    gates = dict.fromkeys(result.gate for result in verdict.gates if result.gate.model is None)
    if not gates or model.name == verdict.subject.name:
        return []
    tried = [try_gate(gate, model, decides=False) for gate in gates]
    failed = sum(result.failed for result in tried)
    if failed:
        return [f"It would fail {failed} of {plural(len(tried), 'gate')}."]
    return [f"It would pass all of {plural(len(tried), 'gate')}." if len(tried) > 1 else "It would pass the gate."]


def _bars(verdict: Verdict) -> list[Bar]:
    """Models, the least fooled first, then what they were made of; those of which no ASR is known are left out."""
    known = [model for model in verdict.models if model.worst is not None]
    known.sort(key=lambda model: model.worst.asr if model.worst else 0.0)
    return [
        *(_bar(verdict, model, reference=False) for model in known),
        *(_bar(verdict, model, reference=True) for model in verdict.made_of if model.worst is not None),
    ]


def _bar(verdict: Verdict, model: ModelVerdict, *, reference: bool) -> Bar:
    worst, mean = model.worst, model.clean_accuracy
    assert worst is not None, "models without a rate are not drawn"
    row = surrogate_row(verdict, model, worst.surrogate)
    _, relative = row.cells[verdict.epsilons.index(worst.epsilon)]
    marks = ["safest"] if model.name == verdict.recommended and len(verdict.models) > 1 else []
    marks += ["to be released"] if model.released else []
    return Bar.of(
        model.name,
        Mean(worst.asr, worst.asr_low, worst.asr_high, 1),
        worst.images_both_correct,
        row.epsilon50,
        relative,
        holder(worst.surrogate),
        mean,
        reference=reference,
        marks=tuple(marks),
        failed=any(result.failed and result.model == model.name for result in verdict.gates),
    )


def _limits(verdict: Verdict) -> list[float]:
    """Where gates on ASR at the reference budget draw their line, in percent."""
    gates = [result.gate for result in verdict.gates if result.decides and result.gate.measure == "asr"]
    here = [
        gate for gate in gates if gate.epsilon is None or math.isclose(gate.epsilon, verdict.reference_epsilon)
    ]
    return sorted({round(100 * gate.limit, 2) for gate in here if gate.surrogate is None and 0 <= gate.limit <= 1})


def _lines(verdict: Verdict, model: ModelVerdict) -> list[Line]:
    """From the highest at the reference budget to the lowest."""
    at = dict(zip(verdict.epsilons, budget_places(verdict.epsilons), strict=True))
    found = []
    for position, measured in enumerate(model.curves):
        readings = [model.at(measured.surrogate, epsilon) for epsilon in verdict.epsilons]
        known = [reading for reading in readings if reading is not None and not math.isnan(reading.asr)]
        if not known:
            continue
        curve = Curve.of(Point(at[r.epsilon], r.asr, r.asr_low, r.asr_high) for r in known)
        marks = tuple(
            (
                _FRAME.x(point.place),
                _FRAME.y(point.asr),
                f"{holder(measured.surrogate)}, {budget(r.epsilon)}: ASR {percent(r.asr, 1)} by {r.attack}",
            )
            for point, r in zip(curve.points, known, strict=True)
        )
        found.append(
            Line(
                holder(measured.surrogate),
                position % _COLOURS,
                measured.surrogate == model.name,
                model.worst is not None and measured.surrogate == model.worst.surrogate,
                _FRAME.line(curve),
                _FRAME.band(curve),
                marks,
                # Where colours repeat, marks do not.
                _MARKS[(position + position // _COLOURS) % len(_MARKS)],
                next((r.asr for r in known if r.epsilon == verdict.reference_epsilon), 0.0),
            )
        )
    return sorted(found, key=lambda line: -line.height)
