"""What explains transfer, as the page shows it: a picture per measure, strongest first, and all figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.cause_pictures import key_svg, lines_of, lines_svg, marks_of, scatter_svg
from mergerisk.report.cause_words import (
    answers_text,
    attacker_words,
    correlation_text,
    different,
    in_one_sentence,
    mediated_text,
    missing_lines,
    nulls_text,
    odds_text,
    predicted_text,
    r2_text,
    sentences,
    unsaid_lines,
)
from mergerisk.report.gradient_drawings import drawings
from mergerisk.report.measure_words import words_of
from mergerisk.report.naming import holder
from mergerisk.statistics.explaining import Correlation, Mediated, Odds, Predicted

if TYPE_CHECKING:
    from markupsafe import Markup

    from mergerisk.report.gradient_drawings import Drawing
    from mergerisk.report.summary import Summary
    from mergerisk.statistics.explaining import Explained, Explanation, Explanations

SHOWN = 3
"""Measures whose pictures are not folded away."""

DRAWN = "gradient_alignment"
"""The measure of which example images are drawn."""

COLUMNS = ("measure", "goes with", "ρ, ε50", "ρ, ASR", "ρ, images", "odds", "AUC", "R²", "mediated")
"""Of the table; see `row_of`."""

_VERDICTS = {
    (1, "moves with"): "more of it, fooled more: moves with",
    (-1, "moves with"): "more of it, fooled less: moves with",
}


@dataclass(frozen=True)
class Cell:
    """A figure as text, and what a table is sorted by: a number, NaN where there is none, or the text."""

    text: str
    value: float | str


@dataclass(frozen=True)
class Card:
    """One measure.

    Attributes:
        measure: the column of its diagnostic.
        title: in words.
        sentence: what it is.
        goes: at which levels it goes with what happens.
        explains: whether it does at any.
        figures: in short.
        scatter: the picture; None where no point is known.
        lines: of what was changed; None where nothing was.
        changes: what each line is, numbered, with its verdict.
        drawings: what it is, on example images; may be empty.
    """

    measure: str
    title: str
    sentence: str
    goes: str
    explains: bool
    figures: str
    scatter: Markup | None
    lines: Markup | None
    changes: tuple[str, ...]
    drawings: tuple[Drawing, ...] = ()


@dataclass(frozen=True)
class Figures:
    """One attacker's table."""

    whose: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class CausesView:
    """The section.

    Attributes:
        headline: what explains most, at a glance.
        sentences: how sure that is.
        whose: attacker the pictures are of.
        keys: marks and the methods they stand for.
        first: the strongest, of those that say the same in two ways one.
        rest: the others, strongest first.
        tables: all figures, of the worst attacker first.
        cannot: what cannot be said, and what is missing.
        nulls: which null lines there are.
    """

    headline: str
    sentences: tuple[str, ...]
    whose: str
    keys: tuple[tuple[Markup, str], ...]
    first: tuple[Card, ...]
    rest: tuple[Card, ...]
    tables: tuple[Figures, ...]
    cannot: tuple[str, ...]
    nulls: str


def causes_view(summary: Summary) -> CausesView | None:
    """The section of a run with diagnostics; None of others."""
    found = summary.explanations
    if found is None:
        return None
    worst = found.worst
    meanings = {column.name: column.meaning for kept in summary.further for column in kept.declared.columns}
    shown = {one.measure for one in different(worst.measures)[:SHOWN]}
    cards = tuple(
        _card(found, one, meanings.get(one.measure, ""), summary)
        for one in worst.measures
        if marks_of(found, worst, one.measure)
    )
    keys = [(key_svg(place), name) for place, name in enumerate(worst.methods)]
    keys += [
        (key_svg(None), f"null line: attacks made on {holder(null.surrogate)}")
        for null in found.nulls
        if null.surrogate
    ]
    return CausesView(
        in_one_sentence(worst),
        sentences(worst),
        attacker_words(worst),
        tuple(keys),
        tuple(card for card in cards if card.measure in shown),
        tuple(card for card in cards if card.measure not in shown),
        tuple(
            Figures(attacker_words(one), tuple(row_of(measure) for measure in one.measures))
            for one in (worst, *found.attackers)
        ),
        (*unsaid_lines(worst), *missing_lines(worst)),
        nulls_text(found),
    )


def row_of(one: Explained) -> tuple[Cell, ...]:
    """A measure's figures, by `COLUMNS`."""

    def number(found: object, kind: type, name: str) -> float:
        return float(getattr(found, name)) if isinstance(found, kind) else math.nan

    return (
        Cell(one.measure, one.measure),
        Cell(answers_text(one), -float(list(one.answers.values()).count("yes"))),
        Cell(correlation_text(one.epsilon50), number(one.epsilon50, Correlation, "value")),
        Cell(correlation_text(one.asr), number(one.asr, Correlation, "value")),
        Cell(correlation_text(one.images), number(one.images, Correlation, "value")),
        Cell(odds_text(one.matched), number(one.matched, Odds, "ratio")),
        Cell(predicted_text(one.predicted), number(one.predicted, Predicted, "auc")),
        Cell(r2_text(one.predicted), number(one.predicted, Predicted, "r2")),
        Cell(mediated_text(one.mediated), number(one.mediated, Mediated, "share")),
    )


def _card(found: Explanations, one: Explained, meaning: str, summary: Summary) -> Card:
    worst, words = found.worst, words_of(one.measure, meaning)
    epsilons, moves = summary.run.epsilons, summary.moves
    marks = marks_of(found, worst, one.measure)
    held = _most_held(worst)
    moved = (
        [part for part in moves.moved if part.measure == one.measure and part.surrogate == held] if moves else []
    )
    lines = lines_of(moved)
    verdict_of = {part.change: _VERDICTS.get((part.direction, part.verdict), part.verdict) for part in moved}
    figures = [f"With ε50 between methods ρ {correlation_text(one.epsilon50)}"]
    figures += [f"among images ρ {correlation_text(one.images)}"]
    figures += [f"on the same image odds {odds_text(one.matched)}"]
    return Card(
        one.measure,
        words.title,
        words.sentence,
        answers_text(one),
        one.explains,
        "; ".join(text for text in figures if not text.endswith("–")),
        scatter_svg(
            marks, epsilons, words.title, f"{words.title} against ε50, one point per task and method", lines
        ),
        lines_svg(lines, epsilons, words.title, f"{words.title} and ε50 as single things are changed", marks)
        if lines
        else None,
        tuple(f"{place}. {line.name}: {verdict_of[line.name]}" for place, line in enumerate(lines, 1)),
        drawings(summary.gradients) if one.measure == DRAWN else (),
    )


def _most_held(found: Explanation) -> str:
    """The surrogate that is the worst of most methods."""
    held = list(found.chosen.values()) or [found.attacker]
    return max(dict.fromkeys(held), key=held.count)
