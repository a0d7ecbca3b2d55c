"""What ``mergerisk claims`` prints: a table of verdicts, then a section on each claim."""

from __future__ import annotations

import json
from math import isnan
from textwrap import fill
from typing import TYPE_CHECKING

from mergerisk._version import __version__
from mergerisk.cli.words import _table
from mergerisk.statistics.judging import show_effect, show_p

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.statistics import Effect, Interval, RankPicture, Retest, Tables, Verdict

WIDTH = 100
"""Columns of the longest line."""

_LABEL = 14
_RULE = (
    "a verdict needs both: a corrected test, which takes settings as independent, and an interval on one side, "
    "which knows that settings of one task share images"
)


def describe_claims(tables: Tables, verdicts: Sequence[Verdict]) -> str:
    """Verdicts in lines of at most :data:`WIDTH` columns.

    Args:
        tables: what was judged on.
        verdicts: of every claim.
    """
    head = [_wrap(f"source: {tables.source}; {_holding(tables)}")]
    head += [_wrap(note) for note in tables.notes]
    head.append(_wrap(_RULE))
    rows = [
        (verdict.name, verdict.answer, _p(verdict), _main_effect(verdict), _main_interval(verdict))
        for verdict in verdicts
    ]
    by = "Holm" if verdicts and verdicts[0].correction == "holm" else "BH"
    table = _table(("claim", "verdict", f"p ({by})", "effect", "interval"), _fitting(rows))
    sections = [_section(verdict) for verdict in verdicts]
    return "\n\n".join(["\n".join(head), table, *sections])


def claims_to_json(tables: Tables, verdicts: Sequence[Verdict], seed: int) -> str:
    """The same as strict JSON: ``schema_version``, ``mergerisk``, ``source``, ``notes``, ``seed`` and
    ``verdicts``."""
    document = {
        "schema_version": 1,
        "mergerisk": __version__,
        "source": tables.source,
        "notes": list(tables.notes),
        "seed": seed,
        "verdicts": [verdict.to_dict() for verdict in verdicts],
    }
    return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1)


def _fitting(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Long names on several lines, so that the table keeps to the width."""
    widths = (28, 12, 9, 16, 27)
    return [
        tuple(fill(cell, width, break_on_hyphens=False) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


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


def _section(verdict: Verdict) -> str:
    lines = [
        _wrap(f"{verdict.name}: {verdict.answer.upper()}"),
        "─" * min(WIDTH, len(verdict.name) + 2 + len(verdict.answer)),
    ]
    lines += [_wrap(verdict.sentence)]
    items = [("why", verdict.reason), ("compared", verdict.comparison)]
    items += [("effect", f"{effect.name} {show_effect(effect)}") for effect in verdict.effects]
    items += [("interval", _interval(interval, verdict)) for interval in verdict.intervals]
    items += [
        ("counted", f"{figure.text} {figure.name}" if " of " in figure.text else f"{figure.name}: {figure.text}")
        for figure in verdict.figures
    ]
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
    items += [("caution", text) for text in verdict.cautions]
    previous = ""
    for label, text in items:
        lines.append(_item("" if label == previous else label, text))
        previous = label
    return "\n".join(lines)


def _ranks(ranks: RankPicture) -> list[tuple[str, str]]:
    listed = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(ranks.names, ranks.mean_ranks, strict=True))
    together = "; ".join(", ".join(group) for group in ranks.cliques)
    return [
        (
            "mean ranks",
            f"{listed}; critical difference {ranks.critical_difference:.2f} (Nemenyi, {ranks.blocks} blocks)",
        ),
        ("not separated", together or "none: every neighbour is"),
    ]


def _retest(retest: Retest) -> str:
    test = f"{retest.test} on {retest.units}: {show_p(retest.p_adjusted)}"
    return f"{retest.answer}; {test}, {retest.effect.name} {show_effect(retest.effect)}"


def _detectable(effect: Effect) -> str:
    shown = show_effect(effect).lstrip("+")
    if shown == "unknown":
        return "no effect is large enough for a power of 80 %"
    return f"a {effect.name} of {shown}, with a power of 80 %"


def _p(verdict: Verdict) -> str:
    return show_p(verdict.p_adjusted).removeprefix("p ").removeprefix("= ").replace("unknown", "–")


def _interval(interval: Interval, verdict: Verdict) -> str:
    if not interval.known:
        return f"unknown ({interval.how})"
    low, high = _ends(interval, verdict)
    return f"{interval.confidence:.0%} {low} to {high} over {interval.over} ({interval.how})"


def _ends(interval: Interval, verdict: Verdict) -> tuple[str, str]:
    digits = 2 if verdict.effects[0].unit else 3
    sign = "+" if verdict.effects[0].unit else ""
    return f"{interval.low:{sign}.{digits}f}", f"{interval.high:{sign}.{digits}f}"


def _main_effect(verdict: Verdict) -> str:
    return show_effect(verdict.effects[0]) if verdict.effects else "not tested"


def _main_interval(verdict: Verdict) -> str:
    known = [interval for interval in verdict.intervals if interval.known]
    if not known:
        return "–"
    low, high = _ends(known[0], verdict)
    return f"{low} to {high} ({known[0].over})"


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
