"""What ``mergerisk causes`` prints: a table, strongest first, and what it says and does not say."""

from __future__ import annotations

import math
from textwrap import fill
from typing import TYPE_CHECKING

from mergerisk.report.cause_words import (
    answers_text,
    attacker_words,
    correlation_text,
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
from mergerisk.report.naming import holder
from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.statistics.explaining import Explanation, Explanations, Moved, Moves

WIDTH = 100
"""Columns of the longest line of text; the table may be wider."""

_KEY = (
    "ρ, ε50: rank correlation with the budget that fools half, between methods; below 0: methods with larger "
    "values fall sooner. ρ, images: with being fooled, among one method’s images. Odds: of being fooled, on the "
    "same image, per standard deviation more than is usual for the method, clean accuracy held fixed. AUC, R²: "
    "of a method that was left out. Mediated: of the difference between the safest and the riskiest method. In "
    "brackets: 95 % intervals, over images. Goes with: what a test corrected for all measures (Holm) supports"
)


def describe_causes(found: Explanations, moves: Moves | None = None) -> str:
    """Everything, in lines of at most :data:`WIDTH` columns but for the tables."""
    parts = ["\n".join(_wrap(line) for line in (in_one_sentence(found.worst), *sentences(found.worst)))]
    parts.append(_section(found.worst))
    parts += [_section(one) for one in found.attackers]
    parts.append(_wrap(_KEY))
    if moves is not None:
        parts += describe_moves(moves)
    cannot = [*unsaid_lines(found.worst), *missing_lines(found.worst)]
    if cannot:
        parts.append("\n".join(["What cannot be said", *(_item(line) for line in cannot)]))
    parts.append(_wrap(nulls_text(found)))
    return "\n\n".join(parts)


def _section(found: Explanation) -> str:
    title = f"{attacker_words(found)}: {len(found.methods)} methods, {found.images} images"
    head = ("measure", "goes with", "ρ, ε50", "ρ, images", "odds", "AUC", "R²", "mediated")
    rows = [
        (
            m.measure,
            answers_text(m),
            correlation_text(m.epsilon50),
            correlation_text(m.images),
            odds_text(m.matched),
            predicted_text(m.predicted),
            r2_text(m.predicted),
            mediated_text(m.mediated),
        )
        for m in found.measures
    ]
    return f"{title[0].upper()}{title[1:]}\n{text_table([head, *rows], ruled=True)}"


def describe_moves(moves: Moves) -> Iterator[str]:
    """What was changed and what the outcomes did, then which measures moved with them; by attacker."""
    yield "What moves when one thing about a merge is changed"
    for held in dict.fromkeys(part.surrogate for part in moves.moved):
        own = [part for part in moves.moved if part.surrogate == held]
        title = f"Attacks made on {holder(held)}; of the images that all merges of a change get right"
        yield f"{title}\n{text_table([('change', 'merge', 'dose', 'ASR', 'ε50'), *_responses(own)], ruled=True)}"
        measures: dict[str, list[Moved]] = {}
        for part in own:
            measures.setdefault(part.measure, []).append(part)
        told = [_verdicts(name, parts) for name, parts in measures.items() if any(map(_is_told, parts))]
        if told:
            head = ("measure", "more of it", "moves with", "does not")
            yield text_table([head, *sorted(told, key=lambda row: row[2], reverse=True)], ruled=True)
        if len(told) < len(measures):
            left = len(measures) - len(told)
            others = "the other one" if left == 1 else f"the {left} others"
            yield _wrap(f"Of {others if told else 'all measures'} it cannot be told.")


def _responses(own: Sequence[Moved]) -> Iterator[tuple[str, ...]]:
    for change, doses in {part.change: part.doses for part in own}.items():
        for number, dose in enumerate(doses):
            said = "" if number else change
            yield said, dose.target, f"{dose.dose:g}", f"{dose.asr:.1%}", _epsilon(dose.epsilon50)


def _is_told(part: Moved) -> bool:
    return part.verdict != "cannot be told"


def _verdicts(name: str, parts: Sequence[Moved]) -> tuple[str, ...]:
    moved = [part for part in parts if part.verdict == "moves with"]
    directions = dict.fromkeys("fooled more" if part.direction > 0 else "fooled less" for part in moved)
    stayed = sum(part.verdict == "does not" for part in parts)
    return name, " or ".join(directions) or "–", f"{len(moved)} of {len(parts)}", str(stayed)


def _epsilon(value: float) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "above all budgets"
    return "below all budgets" if value == 0 else f"{255 * value:.2g}/255"


def _wrap(text: str) -> str:
    return fill(text, WIDTH, break_on_hyphens=False)


def _item(text: str) -> str:
    return fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
