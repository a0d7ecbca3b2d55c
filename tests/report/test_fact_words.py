"""Words for what statistics finds: every kind of fact has some, and measures are called as they are asked to be."""

from __future__ import annotations

import ast
from pathlib import Path

import mergerisk.statistics
from mergerisk.report import fact_words
from mergerisk.report.fact_words import figure, figure_line, in_the_report, said
from mergerisk.statistics.facts import fact


def kinds_in_the_source() -> set[str]:
    """The literal kinds that statistics makes facts of."""
    room = Path(mergerisk.statistics.__file__).parent
    found = set()
    for file in room.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fact":
                literals = (part for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant))
                found |= {part.value for part in literals if isinstance(part.value, str)}
    return found


def test_every_kind_of_fact_has_words() -> None:
    kinds = kinds_in_the_source()
    assert {"few_tasks", "lead", "rate", "beyond_sampling", "few_steps", "step_overshoots", "jackknife"} <= kinds
    assert kinds <= {*fact_words._SAID, *fact_words._FIGURES}


def test_measures_are_renamed_and_what_is_called_like_one_is_not() -> None:
    """A method may be called as a measure is."""
    lead = fact("lead", measure="asr_all", over="asr")
    assert said(lead) == "mean lead in asr_all over asr"
    assert said(lead, in_the_report) == "mean lead in ASR over all images over asr"


def test_figures_are_a_name_and_a_text() -> None:
    found = fact("on_its_side", unit="pairs", below=True, against=0.0, measure="asr", count=15, of=24)
    assert figure(found) == ("pairs at or below 0", "15 of 24")
    assert figure_line(found) == "15 of 24 pairs at or below 0"
    assert figure_line(fact("targets_ordered", count=8)) == "targets ordered: 8"
