"""What a verdict says in words; every rendering says the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mergerisk.report.formatting import budget, interval, listing, percent, plural
from mergerisk.report.naming import holder

if TYPE_CHECKING:
    from mergerisk.audit.readings import Curve, ModelVerdict, Reading
    from mergerisk.audit.verdict import Verdict

WHITE_BOX = "the model itself, which nobody can hold before it is released: an upper bound"


def banner(verdict: Verdict) -> str:
    """What the gates say of the release, in a few words; nothing if there are none."""
    if not verdict.gates:
        return ""
    reason = verdict.reason
    if reason is not None:
        own = [result for result in verdict.gates if result.model == reason.model]
        count = sum(result.failed for result in own)
        return f"Not to be released: {reason.model} fails {count} of {plural(len(own), 'gate')}"
    tried = [result for result in verdict.gates if result.decides]
    failing = sorted({result.model for result in verdict.gates if result.failed})
    more = f"; candidates that fail: {listing(failing)}" if failing else ""
    if not tried:
        return f"No gate on what is going to be released{more}"
    names = list(dict.fromkeys(result.model for result in tried))
    return f"{listing(names)} {'passes' if len(names) == 1 else 'pass'} every gate{more}"


def headline(verdict: Verdict) -> str:
    """How often the worst attacker fools the model; if the audit fails, on what it does, and what must hold."""
    subject, reason = verdict.subject, verdict.reason
    if reason is None:
        return _threat(verdict, subject.worst)
    must = f"{reason.must[0].upper()}{reason.must[1:]}"
    if math.isnan(reason.value):
        return f"{_threat(verdict, subject.worst)} {must}, but {reason.detail}."
    if reason.surrogate is None:
        return f"{subject.name}: {reason.must}; it is {reason.detail}."
    return f"{_threat(verdict, told_of(verdict))} {must}."


def beside(verdict: Verdict) -> str:
    """ε50 and relative ASR from the surrogate that the headline speaks of; nothing without one."""
    reading = told_of(verdict)
    if reading is None:
        return ""
    subject = verdict.subject
    curve = next(curve for curve in subject.curves if curve.surrogate == reading.surrogate)
    relative = f"relative ASR {ratio(reading.relative_asr, reading.relative_asr_low, reading.relative_asr_high)}"
    if math.isnan(reading.relative_asr):
        relative = f"relative ASR unknown, since {holder(reading.surrogate)} itself is never fooled"
    return (
        f"From {holder(reading.surrogate)}: ε50 {epsilon50_text(curve)}; {relative} at {budget(reading.epsilon)}."
    )


def told_of(verdict: Verdict) -> Reading | None:
    """What the headline speaks of: the worst attacker, or the surrogate on which the audit fails."""
    subject, reason = verdict.subject, verdict.reason
    if reason is None or reason.surrogate is None:
        return subject.worst
    return subject.at(reason.surrogate, verdict.reference_epsilon if reason.epsilon is None else reason.epsilon)


def _threat(verdict: Verdict, reading: Reading | None) -> str:
    """How often one attacker fools the model."""
    subject = verdict.subject
    if reading is None and all(other.white_box for other in subject.readings) and subject.readings:
        return f"{subject.name}: only the model itself was a surrogate; what it shows is an upper bound."
    if reading is None:
        return f"{subject.name}: surrogate and model classify no image correctly alike; nothing can be said."
    return (
        f"Attacks made on {holder(reading.surrogate)} fool {subject.name} on {percent(reading.asr)} "
        f"{interval(reading.asr_low, reading.asr_high)} of {plural(reading.images_both_correct, 'image')} at "
        f"{budget(reading.epsilon)}."
    )


def findings(verdict: Verdict) -> list[str]:
    """What else is to be said, most important first."""
    subject = verdict.subject
    said = [*_worst(verdict), *_made_of(verdict), _accuracy(subject), *_choice(verdict)]
    pretrained = subject.at("pretrained", verdict.reference_epsilon)
    if pretrained is not None and subject.worst is not None and subject.worst.surrogate != "pretrained":
        said.append(
            f"The public base alone reaches {percent(pretrained.asr)} "
            f"{interval(pretrained.asr_low, pretrained.asr_high)} of "
            f"{plural(pretrained.images_both_correct, 'image')} at {budget(pretrained.epsilon)}."
        )
    return said


def safer_than_ingredients(verdict: Verdict) -> str:
    """Whether the model is told from what it was made of, in a few words; nothing where that was not attacked."""
    sides = _sides(verdict)
    words = {
        "expert": "its experts" if len(verdict.subject.by_task) > 1 else "its expert",
        "pretrained": "its base",
    }
    below = [words[name] for name, side in sides.items() if side == "more"]
    above = [words[name] for name, side in sides.items() if side == "less"]
    said = [f"riskier than {' and '.join(above)}"] if above else []
    said += [f"safer than {' and '.join(below)}"] if below else []
    text = "; ".join(said) or ("not told apart" if sides else "")
    return f"{text[:1].upper()}{text[1:]}"


def _sides(verdict: Verdict) -> dict[str, str]:
    """Ingredient → whether it is fooled ``more`` often than the model, ``less`` often, or ``alike``."""
    found: dict[str, str] = {}
    for model in verdict.made_of:
        for pair in verdict.beside_ingredients.pairs if verdict.beside_ingredients else ():
            if {pair.first, pair.second} == {model.name, verdict.subject.name}:
                found[model.name] = "alike" if not pair.apart else "less" if pair.first == model.name else "more"
    return found


def made_of(verdict: Verdict) -> str:
    """How often what the model was made of is fooled, each by its own worst attacker; nothing if unknown."""
    sides, said = _sides(verdict), []
    than = f"than {verdict.subject.name}"
    for model in verdict.made_of:
        if model.worst is not None and model.name in sides:
            rate = f"{percent(model.worst.asr)} {interval(model.worst.asr_low, model.worst.asr_high)}"
            how = {"alike": "not told from it", "less": f"less often {than}", "more": f"more often {than}"}
            images = plural(model.worst.images_both_correct, "image")
            said.append(f"{holder(model.name)} is fooled on {rate} of {images}, {how[sides[model.name]]}")
    if not said or verdict.beside_ingredients is None:
        return ""
    pairs = plural(len(verdict.beside_ingredients.pairs), "pair")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]} (paired on the same images, corrected for {pairs})."


def _made_of(verdict: Verdict) -> list[str]:
    said = made_of(verdict)
    return [said] if said else []


def _accuracy(model: ModelVerdict) -> str:
    mean, tasks = model.clean_accuracy, plural(len(model.by_task), "task")
    over = f", the mean over {tasks}" if len(model.by_task) > 1 else ""
    return f"Clean accuracy of {model.name}: {percent(mean.value, 1)} {interval(mean.low, mean.high, 1)}{over}."


def _worst(verdict: Verdict) -> list[str]:
    """Who the worst attacker is, if the headline speaks of another, and how the attack is made."""
    worst, told = verdict.subject.worst, told_of(verdict)
    if worst is None:
        return []
    all_images = f"{percent(worst.asr_all, 1)} {interval(worst.asr_all_low, worst.asr_all_high, 1)}"
    images = plural(worst.images, "image")
    how = f"with {worst.attack}; of all {images}, clean errors included, {all_images} are wrong"
    if told is worst and headline(verdict).startswith(_threat(verdict, worst)):
        whose = f"holds {holder(worst.surrogate)} and attacks {how}"
        return [f"The worst attacker, by ASR at {budget(worst.epsilon)}, {whose}."]
    return [
        f"The worst attacker, by ASR, holds {holder(worst.surrogate)}. {_threat(verdict, worst)}",
        f"That is {how}.",
    ]


def _choice(verdict: Verdict) -> list[str]:
    if len(verdict.models) < 2 or verdict.recommended is None:
        return []
    within = f"within {100 * verdict.tolerance:g} points of the best clean accuracy"
    count = len(verdict.compared)
    if count == 1:
        return [
            f"Of the {len(verdict.models)} models, only {verdict.recommended} is {within}: no other is compared."
        ]
    assert verdict.standing is not None
    images, pairs = plural(verdict.standing.images, "image"), plural(len(verdict.standing.pairs), "pair")
    said = f"Safest of the {count} models {within}: {verdict.recommended}"
    how = f"each under its own worst attacker, on the same {images}, corrected for {pairs}"
    if verdict.as_safe:
        return [f"{said}; {listing(list(verdict.as_safe))} cannot be told from it ({how})."]
    return [f"{said}; every other is fooled more often ({how})."]


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
