"""What was found of a claim as a reader meets it: its reason, its figures, and all of it as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk.report.export import plain
from mergerisk.report.fact_words import by_column, effect_size, figure, plain_number, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.report.fact_words import Called
    from mergerisk.statistics import AttackerAnswer, ClaimVerdict, Effect, Fact, Interval, Retest


def p_text(p: float) -> str:
    """``p = 0.012``, ``p = 3.1e-07``, or ``p < 1e-12``."""
    if not np.isfinite(p):
        return "p unknown"
    return "p < 1e-12" if p < 1e-12 else f"p = {p:.1e}" if p < 0.001 else f"p = {p:.3f}"


def ends(interval: Interval, unit: str, digits: tuple[int, int] = (2, 3)) -> tuple[str, str]:
    """The ends of an interval, as texts.

    Args:
        interval: of an effect.
        unit: the effect's.
        digits: after the point, of percentage points and of plain numbers.
    """
    if not unit:
        return plain_number(interval.low, digits[1]), plain_number(interval.high, digits[1])
    return f"{interval.low:+.{digits[0]}f}", f"{interval.high:+.{digits[0]}f}"


def reason(found: AttackerAnswer, called: Called = by_column) -> str:
    """Why the claim is called what it is, in one sentence."""
    if not found.test or found.effect is None:
        why = "" if found.missing is None else said(found.missing, called)
        return f"Not tested: {why}."
    by = "Holm" if found.correction == "holm" else "Benjamini–Hochberg"
    lean = {1: "the claimed way", -1: "the other way", 0: "neither way"}[found.leans]
    effect = f"{said(found.effect.name, called)} {effect_size(found.effect)}"
    of = f"{found.rests_on} {found.of}"
    within = f"{found.units} tasks ({of})" if found.unit == "tasks" else f"{found.units} images of one task ({of})"
    start = f"{found.test} over {within}: {p_text(found.p_adjusted)} after {by}, {effect}, {lean}"
    if found.answer != "inconclusive" or found.leans == 0:
        return f"{start}."
    if not found.p_adjusted < found.level:
        return f"{start}, but no more than chance explains."
    assert found.interval is not None
    return f"{start}, but the interval over {found.interval.over} does not exclude the opposite."


def verdict_to_dict(verdict: ClaimVerdict) -> dict[str, Any]:
    """A verdict as strict JSON has it, its facts in words; NaN becomes None, infinities become strings."""
    kept = (verdict.saturation, verdict.images, verdict.ranks)
    seen, images, ranks = (None if part is None else asdict(part) for part in kept)
    found: dict[str, Any] = plain(
        {
            "name": verdict.name,
            "kind": verdict.kind,
            "sentence": verdict.sentence,
            "attacker": verdict.attacker,
            "chosen": verdict.chosen,
            "attackers": [_attacker(part) for part in verdict.attackers],
            "comparison": said(verdict.compared),
            "measure": verdict.measure,
            "test": verdict.test,
            "unit": verdict.unit,
            "units": verdict.units,
            "rests_on": verdict.rests_on,
            "of": verdict.of,
            "left_out": verdict.left_out,
            "tasks": verdict.tasks,
            "statistic": verdict.statistic,
            "p_value": verdict.p_value,
            "p_adjusted": verdict.p_adjusted,
            "correction": verdict.correction,
            "level": verdict.level,
            "effects": [_effect(effect) for effect in verdict.effects],
            "threshold": verdict.threshold,
            "intervals": [_interval(interval) for interval in verdict.intervals],
            "answer": verdict.answer,
            "reason": reason(verdict),
            "figures": _figures(verdict.figures),
            "saturation": seen,
            "denominators": [_retest(again) for again in verdict.denominators],
            "epsilon50": None if verdict.epsilon50 is None else _retest(verdict.epsilon50),
            "images": images,
            "detectable": None if verdict.detectable is None else _effect(verdict.detectable),
            "ranks": ranks,
            "cautions": [said(caution) for caution in verdict.cautions],
        }
    )
    return found


def _attacker(part: AttackerAnswer) -> dict[str, Any]:
    """What one attacker's attacks say of a claim, as JSON has it."""
    return {
        "attacker": part.attacker,
        "answer": part.answer,
        "leans": part.leans,
        "effect": None if part.effect is None else _effect(part.effect),
        "interval": None if part.interval is None else _interval(part.interval),
        "test": part.test,
        "units": part.units,
        "unit": part.unit,
        "rests_on": part.rests_on,
        "p_value": part.p_value,
        "p_adjusted": part.p_adjusted,
        "reason": reason(part),
        "figures": _figures(part.figures),
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return {"name": said(effect.name), "value": effect.value, "unit": effect.unit}


def _interval(interval: Interval) -> dict[str, Any]:
    return {**asdict(interval), "how": said(interval.how)}


def _figures(found: Sequence[Fact]) -> list[dict[str, str]]:
    return [dict(zip(("name", "text"), figure(part), strict=True)) for part in found]


def _retest(again: Retest) -> dict[str, Any]:
    """A claim tested on another measure, as JSON has it."""
    return {
        "measure": again.measure,
        "test": again.test,
        "units": again.units,
        "effect": _effect(again.effect),
        "p_adjusted": again.p_adjusted,
        "answer": again.answer,
    }
