"""What ``mergerisk causes`` prints: a table, strongest first, and what it says and does not say."""

from __future__ import annotations

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
from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from mergerisk.statistics.explaining import Explanation, Explanations

WIDTH = 100
"""Columns of the longest line of text; the table may be wider."""

_KEY = (
    "ρ, ε50: rank correlation with the budget that fools half, between methods; below 0: methods with larger "
    "values fall sooner. ρ, images: with being fooled, among one method’s images. Odds: of being fooled, on the "
    "same image, per standard deviation more than is usual for the method, clean accuracy held fixed. AUC, R²: "
    "of a method that was left out. Mediated: of the difference between the safest and the riskiest method. In "
    "brackets: 95 % intervals, over images. Goes with: what a test corrected for all measures (Holm) supports"
)


def describe_causes(found: Explanations) -> str:
    """Everything, in lines of at most :data:`WIDTH` columns but for the tables."""
    parts = ["\n".join(_wrap(line) for line in (in_one_sentence(found.worst), *sentences(found.worst)))]
    parts.append(_section(found.worst))
    parts += [_section(one) for one in found.attackers]
    parts.append(_wrap(_KEY))
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


def _wrap(text: str) -> str:
    return fill(text, WIDTH, break_on_hyphens=False)


def _item(text: str) -> str:
    return fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
