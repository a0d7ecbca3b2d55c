"""A finished run with its claims judged: what reports and exports are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mergerisk.report.assembling import summarize
from mergerisk.report.cells import axes_of
from mergerisk.report.claim_words import ends, reason, verdict_to_dict
from mergerisk.report.explaining import diagnostics_of
from mergerisk.report.fact_words import effect_size, in_the_report, said
from mergerisk.report.kept_explanations import explained_now
from mergerisk.report.prices import price_list
from mergerisk.report.summary import REFERENCE_TARGETS
from mergerisk.report.worst import attackers, under_the_worst
from mergerisk.statistics import judge_claims, standings, tables_from_outcomes
from mergerisk.transfer import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.report.kept_explanations import Found
    from mergerisk.report.summary import Summary
    from mergerisk.statistics import AttackerAnswer, ClaimVerdict, Interval, Standings, Tables
    from mergerisk.study import FinishedRun
    from mergerisk.transfer import Counted


def judged_summary(
    run: FinishedRun, explaining: Callable[[FinishedRun, Summary], Found] = explained_now
) -> Summary:
    """The summary of a run, with the built-in claims judged on it and how its methods stand.

    The claims are those of :func:`mergerisk.statistics.built_in`: attacks made on the attacked task's own expert
    and on the pretrained model, against the merges; judged for the worse of the two in every setting, with each by
    itself beside it. What a run is too small for is not tested, and says so. How methods stand is judged on the
    attacks of :mod:`mergerisk.report.worst`: of each method's worst attacker.

    Args:
        run: what was run.
        explaining: what says what explains who is fooled.
    """
    counted = count(run.outcomes)
    tables = tables_of(run, counted)
    summary = summarize(run, claims=[claim_of(verdict) for verdict in judge_claims(tables)], counted=counted)
    rows, whose = under_the_worst(summary, tables.rates), attackers(axes_of(summary))
    # what else is measured, such as a merge made elsewhere, is shown the same images and stands beside them
    models = list(run.study.ranked)

    def stand(names: list[str]) -> tuple[Standings, ...]:
        return tuple(replace(found, attackers=whose) for found in standings(tables, names, rows=rows))

    found = explaining(run, summary)
    return replace(
        summary,
        standings=stand(models),
        beside_ingredients=stand([*models, *REFERENCE_TARGETS]),
        explanations=found.explanations,
        moves=found.moves,
        prices=price_list(run),
    )


def tables_of(run: FinishedRun, counted: Counted | None = None) -> Tables:
    """What a run's claims are judged on.

    Args:
        run: what was run.
        counted: :func:`mergerisk.transfer.count` of its outcomes, where somebody has it already.
    """
    merges = [spec.label for spec in run.study.merging if spec.intervention is None]
    diagnostics = diagnostics_of(run)
    return tables_from_outcomes(
        run.outcomes, run.clean, merges=merges, source="run", counted=counted, diagnostics=diagnostics
    )


def claim_of(verdict: ClaimVerdict) -> dict[str, Any]:
    """A verdict as a summary holds it: a line each for readers, everything else under ``detail``."""
    tested = bool(verdict.test)
    shown: dict[str, Any] = {
        "name": verdict.name,
        "sentence": verdict.sentence,
        "verdict": verdict.answer if tested else "not tested",
        "reason": reason(verdict, in_the_report),
        "compared": said(verdict.compared, in_the_report),
    }
    if tested:
        effect = verdict.effects[0]
        full = verdict.saturation
        shown |= {
            "attacker": _whose(verdict),
            "effect": f"{said(effect.name, in_the_report)} {effect_size(effect)}",
            "interval": _over(verdict.interval, effect.unit),
            "p_adjusted": verdict.p_adjusted,
            "tested_over": f"{verdict.units} {'tasks' if verdict.unit == 'tasks' else 'images of one task'}",
            "saturated": f"{full.saturated} of {full.cells}" if full else None,
            "by_other_ASR": "; ".join(
                f"{in_the_report(again.measure)}: {again.answer}" for again in verdict.denominators
            )
            or None,
            "on_ε50": verdict.epsilon50.answer if verdict.epsilon50 else None,
            "cautions": [
                said(caution, in_the_report) for caution in verdict.cautions if caution.kind not in _ON_OWN_LINES
            ],
            "attackers": [_beside(part) for part in verdict.attackers if part.test],
        }
    return shown | {"detail": verdict_to_dict(verdict)}


def _whose(verdict: ClaimVerdict) -> str | None:
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
        "effect": effect_size(part.effect) if part.effect else None,
        "interval": _interval(part.interval, unit),
        "p_adjusted": part.p_adjusted,
    }


def _interval(interval: Interval | None, unit: str) -> str | None:
    if interval is None:
        return None
    return f"{' to '.join(ends(interval, unit, digits=(1, 3)))} {unit}".rstrip()


def _over(interval: Interval | None, unit: str) -> str | None:
    return None if interval is None else f"{_interval(interval, unit)}, over {interval.over}"


_ON_OWN_LINES = {"other_asr", "on_epsilon50"}
"""Cautions that repeat what has a line of its own."""
