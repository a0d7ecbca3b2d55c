"""What ``mergerisk claims`` prints: a table of verdicts, then a section on each claim."""

from __future__ import annotations

import json
from math import isnan
from textwrap import fill
from typing import TYPE_CHECKING

from mergerisk._version import __version__
from mergerisk.report.claim_words import ends, p_text, reason, verdict_to_dict
from mergerisk.report.fact_words import effect_size, figure_line, said
from mergerisk.statistics.attackers import POOLED
from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.statistics import ClaimVerdict, Effect, Interval, RankPicture, Retest, Tables

WIDTH = 100
"""Columns of the longest line."""

_LABEL = 14
_RULE = (
    "a claim's verdict is that of the worst attacker in every setting, whom a defender faces; each attacker by "
    "itself and all pooled stand below it. A verdict needs both: a corrected test over what is independent "
    "(tasks, or of a single task its images), and an interval on one side"
)


def describe_claims(tables: Tables, verdicts: Sequence[ClaimVerdict]) -> str:
    """Verdicts in lines of at most :data:`WIDTH` columns.

    Args:
        tables: what was judged on.
        verdicts: of every claim.
    """
    head = [_wrap(f"source: {tables.source}; {_holding(tables)}")]
    head += [_wrap(note) for note in tables.notes]
    head.append(_wrap(_RULE))
    rows = [row for verdict in verdicts for row in _rows(verdict)]
    by = "Holm" if verdicts and verdicts[0].correction == "holm" else "BH"
    title = ("claim", "verdict", f"p ({by})", "effect", "interval")
    table = text_table([title, *_fitting(rows)], ruled=True)
    sections = [_section(verdict) for verdict in verdicts]
    return "\n\n".join(["\n".join(head), table, *sections])


def claims_to_json(tables: Tables, verdicts: Sequence[ClaimVerdict], seed: int) -> str:
    """The same as strict JSON: ``schema_version``, ``mergerisk``, ``source``, ``notes``, ``seed`` and
    ``verdicts``. Since version 2 a verdict is the worst attacker's, and ``attackers`` has the others."""
    document = {
        "schema_version": 2,
        "mergerisk": __version__,
        "source": tables.source,
        "notes": list(tables.notes),
        "seed": seed,
        "verdicts": [verdict_to_dict(verdict) for verdict in verdicts],
    }
    return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1)


def _fitting(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Long names on several lines, so that the table keeps to the width."""
    widths = (28, 12, 9, 16, 27)
    return [
        tuple(
            fill(
                cell.strip(),
                width,
                initial_indent=_indent(cell),
                subsequent_indent=_indent(cell),
                break_on_hyphens=False,
            )
            for cell, width in zip(row, widths, strict=True)
        )
        for row in rows
    ]


def _indent(cell: str) -> str:
    return " " * (len(cell) - len(cell.lstrip()))


def _holding(tables: Tables) -> str:
    rates = tables.rates
    parts = [
        f"{len(rates):,} settings",
        f"{rates['task'].nunique()} tasks",
        f"{rates['attack'].nunique()} attacks",
        f"{rates['target'].nunique()} targets",
    ]
    if rates["epsilon"].nunique():
        parts.append(f"{rates['epsilon'].nunique()} budgets")
    parts.append("rates only" if tables.outcomes is None else f"{len(tables.outcomes):,} outcomes per image")
    return ", ".join(parts)


def _rows(verdict: ClaimVerdict) -> list[tuple[str, ...]]:
    """The claim's answer, then one row per attacker beside it."""
    unit = verdict.effects[0].unit if verdict.effects else ""
    effect = verdict.effect if verdict.test else None
    rows: list[tuple[str, ...]] = [
        (
            verdict.name,
            verdict.answer,
            _p(verdict.p_adjusted),
            _shown(effect),
            _short_interval(verdict.interval, unit),
        )
    ]
    rows += [
        (
            f"  {named(part.attacker)}",
            part.answer,
            _p(part.p_adjusted),
            _shown(part.effect if part.test else None),
            _short_interval(part.interval, part.effect.unit if part.effect else ""),
        )
        for part in verdict.attackers
        if part.test
    ]
    return rows


def named(attacker: str) -> str:
    """An attacker in a few words."""
    return "all of them pooled" if attacker == POOLED else f"from {attacker}"


def _section(verdict: ClaimVerdict) -> str:
    lines = [
        _wrap(f"{verdict.name}: {verdict.answer.upper()}"),
        "─" * min(WIDTH, len(verdict.name) + 2 + len(verdict.answer)),
    ]
    lines += [_wrap(verdict.sentence)]
    items = [("attacker", _attacker(verdict))] if verdict.attacker and verdict.test else []
    items += [("why", reason(verdict)), ("compared", said(verdict.compared))]
    items += [("effect", f"{said(effect.name)} {effect_size(effect)}") for effect in verdict.effects]
    items += [("interval", _interval(interval, verdict)) for interval in verdict.intervals]
    items += [("counted", figure_line(figure)) for figure in verdict.figures]
    for part in verdict.attackers:
        if part.test:
            counted = "; ".join(figure_line(figure) for figure in part.figures)
            items.append((part.attacker, f"{part.answer}: {reason(part)} Counted: {counted}."))
    if verdict.images is not None:
        seen = verdict.images
        least = "no difference" if isnan(seen.detectable) else f"{100 * seen.detectable:.0f} points"
        text = (
            f"McNemar on {seen.settings} pairs of settings (BH): the first fools more images in {seen.higher}, "
            f"fewer in {seen.lower}; {seen.images:.0f} images each, enough to find {least} with a power of 80 %"
        )
        items.append(("per image", text))
    if verdict.saturation is not None:
        full = verdict.saturation
        text = f"{full.saturated} of {full.cells} settings at 99 % or more, {full.near_zero} near 0"
        items.append(("saturation", text))
    items += [("other ASR", f"{retest.measure}: {_retest(retest)}") for retest in verdict.denominators]
    if verdict.epsilon50 is not None:
        items.append(("on ε50", _retest(verdict.epsilon50)))
    if verdict.detectable is not None:
        items.append(("detectable", _detectable(verdict.detectable)))
    if verdict.ranks is not None:
        items += _ranks(verdict.ranks)
    items += [("caution", said(caution)) for caution in verdict.cautions]
    previous = ""
    for label, text in items:
        lines.append(_item("" if label == previous else label, text))
        previous = label
    return "\n".join(lines)


def _attacker(verdict: ClaimVerdict) -> str:
    if not verdict.chosen:
        return f"{verdict.attacker}, the only one"
    shares = ", ".join(f"{name} ({share:.0%})" for name, share in verdict.chosen)
    return f"the worst in every setting: {shares} of the outcomes judged"


def _ranks(ranks: RankPicture) -> list[tuple[str, str]]:
    listed = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(ranks.names, ranks.mean_ranks, strict=True))
    together = "; ".join(", ".join(group) for group in ranks.cliques)
    return [
        (
            "mean ranks",
            f"{listed}; critical difference {ranks.critical_difference:.2f} (Nemenyi, {ranks.blocks} tasks)",
        ),
        ("not separated", together or "none: every neighbour is"),
    ]


def _retest(retest: Retest) -> str:
    test = f"{retest.test} over {retest.units} tasks: {p_text(retest.p_adjusted)}"
    return f"{retest.answer}; {test}, {said(retest.effect.name)} {effect_size(retest.effect)}"


def _detectable(effect: Effect) -> str:
    shown = effect_size(effect).lstrip("+")
    if shown == "unknown":
        return "no effect is large enough for a power of 80 %"
    return f"a {said(effect.name)} of {shown}, with a power of 80 %"


def _p(p: float) -> str:
    return p_text(p).removeprefix("p ").removeprefix("= ").replace("unknown", "–")


def _interval(interval: Interval, verdict: ClaimVerdict) -> str:
    if not interval.known:
        return f"unknown ({said(interval.how)})"
    low, high = ends(interval, verdict.effects[0].unit)
    return f"{interval.confidence:.0%} {low} to {high} over {interval.over} ({said(interval.how)})"


def _shown(effect: Effect | None) -> str:
    return effect_size(effect) if effect is not None else "not tested"


def _short_interval(interval: Interval | None, unit: str) -> str:
    if interval is None:
        return "–"
    low, high = ends(interval, unit)
    return f"{low} to {high} ({interval.over})"


def _item(label: str, text: str) -> str:
    return fill(
        text,
        WIDTH,
        initial_indent=f"  {label:<{_LABEL}}",
        subsequent_indent=" " * (_LABEL + 2),
        break_on_hyphens=False,
    )


def _wrap(text: str) -> str:
    return fill(text, WIDTH, break_on_hyphens=False)
