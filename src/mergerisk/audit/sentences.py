"""What a verdict says in words; every rendering says the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mergerisk.report.formatting import budget, interval, listing, percent, plural

if TYPE_CHECKING:
    from mergerisk.audit.readings import Curve
    from mergerisk.audit.verdict import ModelVerdict, Verdict

WHITE_BOX = "the model itself, which nobody can hold before it is released: an upper bound"


def headline(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    subject, worst = verdict.subject, verdict.subject.worst
    if worst is None and all(reading.white_box for reading in subject.readings) and subject.readings:
        return f"{subject.name}: only the model itself was a surrogate; what it shows is an upper bound."
    if worst is None:
        return f"{subject.name}: surrogate and model classify no image correctly alike; nothing can be said."
    share = percent(worst.asr)
    what = f"At {budget(worst.epsilon)}, attacks made on {worst.surrogate} fool {subject.name} on {share}"
    if math.isnan(worst.relative_asr):
        return f"{what} of images, though not {worst.surrogate} itself."
    if worst.relative_asr_low > 1:
        how = "more often than the surrogate itself"
    elif worst.relative_asr_high < 1:
        how = f"{percent(worst.relative_asr)} as often as the surrogate itself"
    else:
        how = "about as often as the surrogate itself"
    return f"{what} of images, {how}."


def findings(verdict: Verdict) -> list[str]:
    """What else is to be said, most important first."""
    subject = verdict.subject
    said = [_accuracy(subject), *_risk(subject), *_choice(verdict)]
    pretrained = subject.at("pretrained", verdict.reference_epsilon)
    if pretrained is not None and subject.worst is not None and subject.worst.surrogate != "pretrained":
        said.append(
            f"The public base alone reaches {percent(pretrained.asr)} "
            f"{interval(pretrained.asr_low, pretrained.asr_high)} at {budget(pretrained.epsilon)}."
        )
    return said


def _accuracy(model: ModelVerdict) -> str:
    mean, tasks = model.clean_accuracy, plural(len(model.by_task), "task")
    over = f", the mean over {tasks}" if len(model.by_task) > 1 else ""
    return f"Clean accuracy of {model.name}: {percent(mean.value, 1)} {interval(mean.low, mean.high, 1)}{over}."


def _risk(model: ModelVerdict) -> list[str]:
    worst = model.worst
    if worst is None:
        return []
    rate = f"{percent(worst.asr, 1)} {interval(worst.asr_low, worst.asr_high, 1)} at {budget(worst.epsilon)}"
    relative = ratio(worst.relative_asr, worst.relative_asr_low, worst.relative_asr_high)
    wrong = f"of all images, clean errors included, {percent(worst.asr_all, 1)} are wrong"
    said = f"Most dangerous surrogate: {worst.surrogate}, with {worst.attack}: ASR {rate}; relative ASR {relative}"
    curve = next(curve for curve in model.curves if curve.surrogate == worst.surrogate)
    return [f"{said}; {wrong}.", f"ε50 from {curve.surrogate}: {epsilon50_text(curve)}."]


def _choice(verdict: Verdict) -> list[str]:
    if len(verdict.models) < 2 or verdict.recommended is None:
        return []
    within = f"within {100 * verdict.tolerance:g} points of the best clean accuracy"
    count = len(verdict.compared)
    if count == 1:
        return [
            f"Of the {len(verdict.models)} models, only {verdict.recommended} is {within}: no other is compared."
        ]
    said = f"Safest of the {count} models {within}: {verdict.recommended}"
    if verdict.as_safe:
        alike = "its interval overlaps" if len(verdict.as_safe) == 1 else "their intervals overlap"
        return [f"{said}; {listing(list(verdict.as_safe))} cannot be told from it ({alike} with it)."]
    return [f"{said}; no other model's interval of ASR overlaps with its own."]


def ratio(value: float, low: float, high: float) -> str:
    """A relative ASR with its interval."""
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" if math.isfinite(value) else "unknown"


def epsilon50_text(curve: Curve) -> str:
    """An ε50 with its interval, or why there is none."""
    found = curve.epsilon50
    match found.status:
        case "measured":
            high = budget(found.high) if math.isfinite(found.high) else "beyond the largest budget"
            low = budget(found.low) if found.low > 0 else "below the smallest budget"
            return f"{budget(found.value)} [{low}, {high}]"
        case "below_smallest":
            return "below the smallest budget"
        case "not_reached":
            return "not reached"
        case _:
            return "unknown: no image counts"
