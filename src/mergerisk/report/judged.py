"""A finished run with its claims judged: what reports and exports are made of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mergerisk.report.assembling import summarize
from mergerisk.statistics import judge, standings, tables_from_outcomes
from mergerisk.statistics.judging import first_known, show_effect
from mergerisk.transfer import count

if TYPE_CHECKING:
    from mergerisk.report.summary import Summary
    from mergerisk.statistics import AttackerAnswer, Interval, Tables, Verdict
    from mergerisk.study import FinishedRun
    from mergerisk.transfer import Counted


def judged_summary(run: FinishedRun) -> Summary:
    """The summary of a run, with the built-in claims judged on it and how its methods stand.

    The claims are those of :data:`mergerisk.statistics.BUILT_IN`: attacks made on the attacked task's own expert
    and on the pretrained model, against the merges; judged for the worse of the two in every setting, with each by
    itself beside it. What a run is too small for is not tested, and says so.
    """
    counted = count(run.outcomes)
    tables = tables_of(run, counted)
    return summarize(
        run,
        claims=[claim_of(verdict) for verdict in judge(tables)],
        standings=standings(tables, [spec.label for spec in run.study.merging]),
        counted=counted,
    )


def tables_of(run: FinishedRun, counted: Counted | None = None) -> Tables:
    """What a run's claims are judged on.

    Args:
        run: what was run.
        counted: :func:`mergerisk.transfer.count` of its outcomes, where somebody has it already.
    """
    merges = [spec.label for spec in run.study.merging]
    return tables_from_outcomes(run.outcomes, run.clean, merges=merges, source="run", counted=counted)


def verdicts_on(run: FinishedRun) -> tuple[Verdict, ...]:
    """The built-in claims, judged."""
    return judge(tables_of(run))


def claim_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a summary holds it: a line each for readers, everything else under ``detail``."""
    tested = bool(verdict.test)
    shown: dict[str, Any] = {
        "name": verdict.name,
        "sentence": verdict.sentence,
        "verdict": verdict.answer if tested else "not tested",
        "reason": _plain(verdict.reason),
        "compared": _plain(verdict.comparison),
    }
    if tested:
        effect = verdict.effects[0]
        full = verdict.saturation
        shown |= {
            "attacker": _whose(verdict),
            "effect": _plain(f"{effect.name} {show_effect(effect)}"),
            "interval": _interval(first_known(verdict.intervals), effect.unit),
            "p_adjusted": verdict.p_adjusted,
            "tested_over": f"{verdict.units} {'tasks' if verdict.unit == 'tasks' else 'images of one task'}",
            "saturated": f"{full.saturated} of {full.cells}" if full else None,
            "by_other_ASR": "; ".join(_plain(f"{again.measure}: {again.answer}") for again in verdict.denominators)
            or None,
            "on_ε50": verdict.epsilon50.answer if verdict.epsilon50 else None,
            "cautions": [_plain(caution) for caution in verdict.cautions if caution not in _said(verdict)],
            "attackers": [_beside(part) for part in verdict.attackers if part.test],
        }
    return shown | {"detail": verdict.to_dict()}


def _whose(verdict: Verdict) -> str | None:
    """Whose attacks the answer is about; None where attackers do not matter."""
    if not verdict.attacker:
        return None
    if not verdict.chosen:
        return verdict.attacker
    return f"{verdict.attacker} ({', '.join(f'{name} in {share:.0%}' for name, share in verdict.chosen)})"


def _beside(part: AttackerAnswer) -> dict[str, Any]:
    """What one attacker's attacks say of the claim, or all pooled."""
    unit = part.effect.unit if part.effect else ""
    return {
        "attacker": part.attacker,
        "verdict": part.answer,
        "effect": show_effect(part.effect) if part.effect else None,
        "interval": (_interval(part.interval, unit) or "").partition(", over ")[0] or None,
        "p_adjusted": part.p_adjusted,
    }


def _interval(interval: Interval | None, unit: str) -> str | None:
    if interval is None:
        return None
    digits, sign = (1, "+") if unit else (3, "")
    ends = f"{interval.low:{sign}.{digits}f} to {interval.high:{sign}.{digits}f}"
    return f"{ends} {unit}".rstrip() + f", over {interval.over}"


def _said(verdict: Verdict) -> set[str]:
    """Cautions that repeat what has a line of its own."""
    again = {f"by {other.measure} it is {other.answer}" for other in verdict.denominators}
    return again | ({f"on ε50 it is {verdict.epsilon50.answer}"} if verdict.epsilon50 else set())


_WORDS = {
    "asr": "ASR", "relative_asr": "relative ASR", "delta_asr": "ΔASR", "surrogate_asr": "ASR of surrogates",
    "clean_accuracy": "clean accuracy",
}  # fmt: skip
_COLUMN = re.compile(rf"(?<![\w+-])({'|'.join(_WORDS)})(_all)?(?![\w+-])")


def _plain(text: str) -> str:
    """Names of columns in the words of the report."""
    return _COLUMN.sub(lambda found: _WORDS[found[1]] + (" over all images" if found[2] else ""), text)
