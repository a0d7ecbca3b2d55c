"""A verdict as text for a terminal, Markdown for a model card, JSON for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.audit.audited import title
from mergerisk.audit.sentences import WHITE_BOX, banner, beside, epsilon50_text, findings, headline, relative_text
from mergerisk.provenance import versions
from mergerisk.report.export import plain
from mergerisk.report.exports.markdown import escaped, table_lines
from mergerisk.report.formatting import budget, plural, with_interval
from mergerisk.report.price_words import COLUMNS, basis, illusion, in_a_line, row_of
from mergerisk.report.price_words import headline as headline_of_prices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.audit.audited import Audited
    from mergerisk.audit.gate_results import GateResult
    from mergerisk.audit.readings import ModelVerdict
    from mergerisk.audit.verdict import Verdict


def to_json(verdict: Verdict) -> str:
    """``audit.json``: every field of :class:`~mergerisk.audit.Verdict`, and what the sentences say.

    Rates are in [0, 1], budgets in pixel units; NaN is null, infinity the string ``"inf"``.
    """
    content: dict[str, Any] = plain(asdict(verdict))
    if verdict.prices is None:
        del content["prices"]
    content["banner"], content["headline"] = banner(verdict), headline(verdict)
    content["beside"], content["findings"] = beside(verdict), findings(verdict)
    content["failed"], content["versions"] = verdict.failed, _versions(verdict)
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Title and rows."""


def model_table(verdict: Verdict) -> Table:
    """Every audited model under its worst attacker, at the reference budget."""
    at = f"ASR at {budget(verdict.reference_epsilon)}"
    rows = []
    for model in verdict.models:
        mean, worst = model.clean_accuracy, model.worst
        marks = ["safest"] if model.name == verdict.recommended and len(verdict.models) > 1 else []
        marks += ["to be released"] if model.released and len(verdict.models) > 1 else []
        mark = f" ({', '.join(marks)})" if marks else ""
        accuracy = with_interval(mean.value, mean.low, mean.high, 1)
        risk = ("–", "–", "–", "–")
        if worst is not None:
            row = surrogate_row(verdict, model, worst.surrogate)
            _, relative = row.cells[verdict.epsilons.index(worst.epsilon)]
            asr = with_interval(worst.asr, worst.asr_low, worst.asr_high, 1)
            risk = (f"{asr} of {row.images}", row.epsilon50, relative, worst.surrogate)
        rows.append((f"{model.name}{mark}", *risk, accuracy))
    return ("model", at, "ε50", "relative ASR", "worst attacker", "clean accuracy"), [*rows]


@dataclass(frozen=True)
class SurrogateRow:
    """One model from one surrogate, as printed.

    Attributes:
        name: the surrogate.
        mark: whether it is the worst attacker or a white box; empty for neither.
        images: those that both classify correctly when clean: what ASR counts.
        epsilon50: with its interval.
        cells: ASR and relative ASR at every budget, with intervals.
    """

    name: str
    mark: str
    images: int
    epsilon50: str
    cells: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """Name and mark."""
        return f"{self.name} ({self.mark})" if self.mark else self.name


def surrogate_row(verdict: Verdict, model: ModelVerdict, surrogate: str) -> SurrogateRow:
    """A model's figures from one of its surrogates."""
    curve = next(curve for curve in model.curves if curve.surrogate == surrogate)
    cells, images = [], 0
    for epsilon in verdict.epsilons:
        reading = model.at(surrogate, epsilon)
        assert reading is not None, "every surrogate was tried at every budget"
        images = reading.images_both_correct
        asr = with_interval(reading.asr, reading.asr_low, reading.asr_high)
        cells.append((asr, relative_text(reading)))
    worst = model.worst is not None and surrogate == model.worst.surrogate
    mark = "white box" if surrogate == model.name else "worst attacker" if worst else ""
    return SurrogateRow(surrogate, mark, images, epsilon50_text(curve), tuple(cells))


def surrogate_rows(verdict: Verdict, model: ModelVerdict) -> list[SurrogateRow]:
    """One model from every surrogate: the worst attacker first, the others by ASR at the reference budget, white
    boxes last."""

    def rank(surrogate: str) -> tuple[bool, float]:
        reading = model.at(surrogate, verdict.reference_epsilon)
        known = reading is not None and not math.isnan(reading.asr)
        return surrogate == model.name, -reading.asr if reading is not None and known else 1.0

    names = sorted((curve.surrogate for curve in model.curves), key=rank)
    return [surrogate_row(verdict, model, name) for name in names]


def surrogate_table(verdict: Verdict, model: ModelVerdict) -> Table:
    """:func:`surrogate_rows` with a column per budget."""
    title = ("surrogate", "images", "ε50", *(f"ASR at {budget(epsilon)}" for epsilon in verdict.epsilons))
    rows = [
        (
            row.title,
            str(row.images),
            row.epsilon50,
            *(f"{asr}; relative {relative}" for asr, relative in row.cells),
        )
        for row in surrogate_rows(verdict, model)
    ]
    return title, [*rows]


def audited_table(audited: Audited) -> Table:
    """Every file of what was audited, with its digest."""
    rows = [
        (title(item.role, item.name), item.path, name, digest)
        for item in audited.items
        for name, digest in item.sha256.items()
    ]
    rows += [
        (title(item.role, item.name), item.path, "–", f"not a file; {_facts(item.identity)}")
        for item in audited.items
        if not item.sha256
    ]
    return ("what", "as given", "file", "SHA-256"), [*rows]


def _facts(identity: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in identity.items() if not isinstance(value, dict))


def circumstances(audited: Audited) -> str:
    """When, where and with what an audit was computed, in a sentence or two."""
    attacks = ", ".join(
        f"{label} ({plural(attack['steps'], 'step')})" for label, attack in audited.attacks.items()
    )
    libraries = ", ".join(f"{name} {version}" for name, version in audited.versions.items())
    day = "" if audited.date is None else f" on {audited.date[:10]} at {audited.date[11:16]} UTC"
    return (
        f"Computed{day}, device {audited.device}, seed {audited.seed}, at most {audited.images_per_task} images a "
        f"task; {attacks}. {libraries}."
    )


def _versions(verdict: Verdict) -> Mapping[str, str]:
    """Of what computed the figures, not of what writes them down."""
    return versions() if verdict.audited is None else verdict.audited.versions


def gate_line(result: GateResult) -> str:
    """A gate in words: on which model, what must hold, and what was found."""
    beside = "" if result.decides else ", a candidate: the release does not hang on it"
    return (
        f"on {result.model}{beside}: {result.must}; {'' if math.isnan(result.value) else 'it is '}{result.detail}"
    )


def to_markdown(verdict: Verdict) -> str:
    """A section for the model card of what is released."""
    subject = verdict.subject
    parts = [
        "## Adversarial transfer risk",
        *(f"> **Doubt:** {escaped(doubt)}" for doubt in verdict.doubts),
        *(f"**{escaped(said)}**" for said in filter(None, [banner(verdict)])),
        escaped(f"{headline(verdict)} {beside(verdict)}".rstrip()),
        *(["\n".join(_markdown_gate(result) for result in verdict.gates)] if verdict.gates else []),
        "\n".join(f"- {escaped(sentence)}" for sentence in findings(verdict)),
        _markdown(*surrogate_table(verdict, subject)),
    ]
    if len(verdict.models) > 1:
        parts.append(_markdown(*model_table(verdict)))
    if verdict.prices is not None:
        parts += [
            "### What would lower it",
            *map(escaped, (headline_of_prices(verdict.prices), illusion(verdict.prices))),
        ]
        parts.append(_markdown(COLUMNS, [row_of(offer, verdict.epsilons) for offer in verdict.prices.offers]))
        parts.append(escaped(basis(verdict.prices)))
    parts.append(
        f"Measured with mergerisk {_versions(verdict)['mergerisk']} on {verdict.images} labelled images; the "
        f"strongest of {escaped(', '.join(verdict.attacks))} counts; budgets bound the {bounded(verdict)}, pixels "
        "in [0, 1]. "
        "*ASR* counts, among the images that surrogate and model classify correctly when clean, those it gets "
        "wrong under attack; *relative ASR* divides by the same rate of the surrogate itself. 95 % intervals."
    )
    parts += [f"> {escaped(remark)}" for remark in verdict.remarks]
    if verdict.audited is not None:
        parts += ["### What was audited", escaped(circumstances(verdict.audited))]
        parts.append(_markdown(*audited_table(verdict.audited)))
    return "\n\n".join(parts) + "\n"


def to_text(verdict: Verdict) -> str:
    """For a terminal."""
    lines = [f"doubt: {doubt}" for doubt in verdict.doubts]
    lines += [line for line in (banner(verdict), headline(verdict), beside(verdict)) if line]
    lines += [f"gate {'FAILED' if result.failed else 'passed'} {gate_line(result)}" for result in verdict.gates]
    lines += [f"- {sentence}" for sentence in findings(verdict)]
    if any(reading.white_box for model in verdict.models for reading in model.readings):
        lines.append(f"- White box: {WHITE_BOX}.")
    if verdict.prices is not None:
        lines.append(f"What would lower it: {headline_of_prices(verdict.prices)}")
        lines += [f"- {in_a_line(offer, verdict.prices)}" for offer in verdict.prices.offers]
    lines += [f"note: {remark}" for remark in verdict.remarks]
    return "\n".join(lines)


def _markdown_gate(result: GateResult) -> str:
    return f"- {'failed' if result.failed else 'passed'} {escaped(gate_line(result))}"


def bounded(verdict: Verdict) -> str:
    """What budgets bound."""
    return "change of any pixel (L∞)" if verdict.norm == "linf" else "length of an image's change (L2)"


def _markdown(title: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[escaped(cell) for cell in row] for row in (title, *rows)]
    return "\n".join(table_lines(cells[0], ["---"] * len(title), cells[1:]))
