"""How gates end: what had to hold, what was found, and whether an estimate or an end of its interval decided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.audit.gates import AT_A_BUDGET, OF_A_CURVE, Gate
from mergerisk.report.formatting import budget, plural, with_interval
from mergerisk.report.naming import holder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mergerisk.audit.readings import Curve, ModelVerdict, Reading

_WORDS = {
    "asr": "ASR",
    "asr_all": "the share of all images that are wrong, clean errors included,",
    "relative_asr": "relative ASR",
    "delta_asr": "ΔASR",
    "epsilon50": "ε50",
    "clean_accuracy": "clean accuracy",
}
"""What measures are called, without the end of an interval."""

_ENDS = {"low": "lower", "high": "upper"}

_MUST = {">": "at most", ">=": "below", "<": "at least", "<=": "above"}
"""What must hold where a comparison makes the audit fail."""


@dataclass(frozen=True)
class GateResult:
    """How a gate ended on one model.

    Attributes:
        gate: the condition.
        model: on which it was tried.
        decides: whether the verdict hangs on it: not if the model is a candidate beside one to be released.
        failed: whether the condition holds somewhere.
        must: what must hold, in words.
        detail: what was found, and what of it decided.
        surrogate: from where; None of a measure that has none, or if nothing was measured.
        epsilon: at which budget; None likewise.
        value: the estimate; NaN if nothing was measured.
        low: lower end of its 95 % interval; NaN if it has none.
        high: upper end.
        decided_by: ``estimate``, ``low`` or ``high``: which of them was compared.
    """

    gate: Gate
    model: str
    decides: bool
    failed: bool
    must: str
    detail: str
    surrogate: str | None
    epsilon: float | None
    value: float
    low: float
    high: float
    decided_by: str


@dataclass(frozen=True)
class _Found:
    """A value that a gate looks at.

    Attributes:
        value: the estimate, with the ends of its interval.
        images: that it rests on; None of a mean over tasks.
        attack: the strongest there.
    """

    value: float
    low: float
    high: float
    images: int | None = None
    surrogate: str | None = None
    epsilon: float | None = None
    attack: str = ""

    def end(self, name: str) -> float:
        """``estimate``, ``low`` or ``high``."""
        return {"estimate": self.value, "low": self.low, "high": self.high}[name]


def try_gate(gate: Gate, model: ModelVerdict, *, decides: bool) -> GateResult:
    """Try a gate on a model. One value that meets the condition is enough to fail; so is that there is none.

    Where several surrogates meet it, the worst attacker's value is told if it is among them, else the one that is
    farthest beyond the limit.
    """
    measure, decided_by = _split(gate.measure)
    known = [found for found in _values(gate, measure, model) if not math.isnan(found.end(decided_by))]
    must = f"{_subject(gate, measure, decided_by)} must be {_MUST[gate.comparison]} {_limit(gate, measure)}"
    if not known:
        nothing = "nothing was measured that it could be compared with"
        return GateResult(
            gate, model.name, decides, True, must, nothing, None, None, math.nan, math.nan, math.nan, decided_by
        )
    failing = [found for found in known if gate.holds(found.end(decided_by))]
    told = next((it for it in failing if model.is_worst(it.surrogate, it.epsilon)), None)
    if told is None:
        largest = gate.comparison in {">", ">="}
        told = (max if largest else min)(failing or known, key=lambda found: found.end(decided_by))
    detail = f"{_shown(measure, told)}{_where(told)}; {_decision(gate, measure, told, decided_by)}"
    others = len({found.surrogate for found in failing} - {told.surrogate})
    if others:
        detail += f"; attacks made on {plural(others, 'other surrogate')} fail it too"
    return GateResult(
        gate,
        model.name,
        decides,
        bool(failing),
        must,
        detail,
        told.surrogate,
        told.epsilon,
        told.value,
        told.low,
        told.high,
        decided_by,
    )


def _split(measure: str) -> tuple[str, str]:
    """``asr_low`` → ``asr``, ``low``; ``asr`` → ``asr``, ``estimate``."""
    stem, _, end = measure.rpartition("_")
    return (stem, end) if end in _ENDS else (measure, "estimate")


def _values(gate: Gate, measure: str, model: ModelVerdict) -> Iterable[_Found]:
    """Where a gate looks, and what it finds there."""
    if gate.measure in AT_A_BUDGET:
        for reading in model.readings:
            if _looked_at(gate, reading.surrogate, model) and (
                gate.epsilon is None or math.isclose(gate.epsilon, reading.epsilon)
            ):
                yield _of_reading(measure, reading)
    elif gate.measure in OF_A_CURVE:
        images = {reading.surrogate: reading.images_both_correct for reading in model.readings}
        for curve in model.curves:
            if _looked_at(gate, curve.surrogate, model):
                yield _of_curve(curve, images[curve.surrogate])
    else:
        mean = model.clean_accuracy
        yield _Found(mean.value, mean.low, mean.high)


def _of_reading(measure: str, reading: Reading) -> _Found:
    low, high = (getattr(reading, f"{measure}_{end}", math.nan) for end in ("low", "high"))
    images = reading.images if measure == "asr_all" else reading.images_both_correct
    value = getattr(reading, measure)
    return _Found(value, low, high, images, reading.surrogate, reading.epsilon, reading.attack)


def _of_curve(curve: Curve, images: int) -> _Found:
    found = curve.epsilon50
    value = {"below_smallest": 0.0, "not_reached": math.inf}.get(found.status, found.value)
    return _Found(value, found.low, found.high, images, curve.surrogate, None, curve.attack)


def _looked_at(gate: Gate, surrogate: str, model: ModelVerdict) -> bool:
    """White boxes only if asked for: nobody can hold a model that is not released yet."""
    return surrogate == gate.surrogate if gate.surrogate else surrogate != model.name


def _subject(gate: Gate, measure: str, decided_by: str) -> str:
    """What a gate speaks of, as a sentence begins."""
    what = _WORDS[measure]
    if decided_by in _ENDS:
        what = f"the {_ENDS[decided_by]} end of the interval of {what.removeprefix('the ')}"
    at = f" at {budget(gate.epsilon)}" if gate.epsilon is not None else ""
    if gate.measure in AT_A_BUDGET and not at:
        at = " at every budget"
    source = f" under attacks made on {holder(gate.surrogate)}" if gate.surrogate else ""
    return f"{what}{at}{source}"


def _limit(gate: Gate, measure: str) -> str:
    if measure in OF_A_CURVE:
        return budget(gate.limit)
    if measure == "delta_asr":
        return f"{gate.limit:g} points"
    return f"{gate.limit:g}" if measure == "relative_asr" else f"{100 * gate.limit:g}%"


def _shown(measure: str, found: _Found) -> str:
    """The estimate with its interval, and of how many images."""
    of = "" if found.images is None else f" of {plural(found.images, 'image')}"
    if measure in OF_A_CURVE:
        if not 0 < found.value < math.inf:
            return f"{'below the smallest' if found.value <= 0 else 'beyond the largest'} budget{of}"
        high = budget(found.high) if math.isfinite(found.high) else "∞"
        return f"{budget(found.value)} [{budget(found.low) if found.low > 0 else '0'}, {high}]{of}"
    if measure == "delta_asr":
        return f"{found.value:.1f} points{of}"
    if measure == "relative_asr":
        high = f"{found.high:.3f}" if math.isfinite(found.high) else "∞"
        return f"{found.value:.3f} [{found.low:.3f}, {high}]{of}"
    return f"{with_interval(found.value, found.low, found.high, 1)}{of}"


def _where(found: _Found) -> str:
    if found.surrogate is None:
        return ""
    at = "" if found.epsilon is None else f" at {budget(found.epsilon)}"
    return f" under {found.attack} made on {holder(found.surrogate)}{at}"


def _decision(gate: Gate, measure: str, found: _Found, decided_by: str) -> str:
    """Whether the estimate or an end of its interval was compared, and if the former, what the interval says."""
    if decided_by in _ENDS:
        return f"the {_ENDS[decided_by]} end of the interval decides"
    said = "the estimate decides"
    if measure == "delta_asr" or math.isnan(found.low) or math.isnan(found.high):
        return said
    if gate.holds(found.low) != gate.holds(found.high):
        return f"{said}, though its interval reaches across the limit"
    return f"{said}, and its whole interval agrees"
