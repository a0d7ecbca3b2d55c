"""A verdict as text for a terminal, Markdown for a model card, JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mergerisk.audit.sentences import WHITE_BOX, epsilon50_text, findings, headline, ratio
from mergerisk.provenance import versions
from mergerisk.report.export import plain
from mergerisk.report.formatting import budget, interval, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.audit.verdict import ModelVerdict, Verdict


def to_json(verdict: Verdict) -> str:
    """``audit.json``: every field of :class:`~mergerisk.audit.Verdict`, and what the sentences say.

    Rates are in [0, 1], budgets in pixel units; NaN is null, infinity the string ``"inf"``.
    """
    content: dict[str, Any] = plain(asdict(verdict))
    content["headline"], content["findings"] = headline(verdict), findings(verdict)
    content["failed"], content["versions"] = verdict.failed, versions()
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Title and rows."""


def model_table(verdict: Verdict) -> Table:
    """Every audited model at the reference budget."""
    at = f"ASR at {budget(verdict.reference_epsilon)}"
    rows = []
    for model in verdict.models:
        mean, worst = model.clean_accuracy, model.worst
        mark = " (safest)" if model.name == verdict.recommended and len(verdict.models) > 1 else ""
        accuracy = f"{percent(mean.value, 1)} {interval(mean.low, mean.high, 1)}"
        risk = ("–", "–", "–")
        if worst is not None:
            asr = f"{percent(worst.asr, 1)} {interval(worst.asr_low, worst.asr_high, 1)}"
            relative = ratio(worst.relative_asr, worst.relative_asr_low, worst.relative_asr_high)
            risk = (worst.surrogate, asr, relative)
        rows.append((f"{model.name}{mark}", accuracy, *risk))
    return ("model", "clean accuracy", "worst surrogate", at, "relative ASR"), [*rows]


def surrogate_table(verdict: Verdict, model: ModelVerdict) -> Table:
    """One model, from every surrogate at every budget, and its ε50."""
    title = ("surrogate", *(f"relative ASR at {budget(epsilon)}" for epsilon in verdict.epsilons), "ε50")
    rows = []
    for curve in model.curves:
        cells = []
        for epsilon in verdict.epsilons:
            reading = model.at(curve.surrogate, epsilon)
            assert reading is not None, "every surrogate was tried at every budget"
            relative = ratio(reading.relative_asr, reading.relative_asr_low, reading.relative_asr_high)
            cells.append(f"{relative}, ASR {percent(reading.asr)}")
        name = f"{curve.surrogate} (white box)" if curve.surrogate == model.name else curve.surrogate
        rows.append((name, *cells, epsilon50_text(curve)))
    return title, rows


def to_markdown(verdict: Verdict) -> str:
    """A section for the model card of what is released."""
    subject = verdict.subject
    parts = [
        "## Adversarial transfer risk",
        _escaped(headline(verdict)),
        "\n".join(f"- {_escaped(sentence)}" for sentence in findings(verdict)),
        _markdown(*surrogate_table(verdict, subject)),
    ]
    if len(verdict.models) > 1:
        parts.append(_markdown(*model_table(verdict)))
    parts.append(
        f"Measured with mergerisk {versions()['mergerisk']} on {verdict.images} labelled images; the strongest of "
        f"{_escaped(', '.join(verdict.attacks))} counts; budgets bound the {_norm(verdict)}, pixels in [0, 1]. "
        "*ASR* counts, among the images that surrogate and model classify correctly when clean, those it gets "
        "wrong under attack; *relative ASR* divides by the same rate of the surrogate itself. 95 % intervals."
    )
    parts += [f"> {_escaped(remark)}" for remark in verdict.remarks]
    return "\n\n".join(parts) + "\n"


def to_text(verdict: Verdict) -> str:
    """For a terminal."""
    lines = [headline(verdict), *(f"- {sentence}" for sentence in findings(verdict))]
    if any(reading.white_box for model in verdict.models for reading in model.readings):
        lines.append(f"- White box: {WHITE_BOX}.")
    lines += [f"note: {remark}" for remark in verdict.remarks]
    lines += [
        f"gate {'FAILED' if result.failed else 'passed'}: {result.gate.text} — {result.detail}"
        for result in verdict.gates
    ]
    return "\n".join(lines)


def _norm(verdict: Verdict) -> str:
    return "change of any pixel (L∞)" if verdict.norm == "linf" else "length of an image's change (L2)"


def _markdown(title: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [title, ["---"] * len(title), *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in cells)} |" for cells in lines)


def _escaped(text: str) -> str:
    """Names from outside must not become markup."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return text if text != "\\-\\-\\-" else "---"
