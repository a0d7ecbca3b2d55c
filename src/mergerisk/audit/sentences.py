"""What a verdict says in words; every rendering says the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mergerisk.report.formatting import budget, interval, listing, percent, plural, ratio, with_interval
from mergerisk.report.naming import change, holder

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
        return f"Not to be released: {holder(reason.model)} fails {count} of {plural(len(own), 'gate')}"
    tried = [result for result in verdict.gates if result.decides]
    failing = sorted({holder(result.model) for result in verdict.gates if result.failed})
    more = f"; candidates that fail: {listing(failing)}" if failing else ""
    if not tried:
        return f"No gate on what is going to be released{more}"
    names = list(dict.fromkeys(result.model for result in tried))
    passed = listing([_opening(names[0]), *map(holder, names[1:])])
    return f"{passed} {'passes' if len(names) == 1 else 'pass'} every gate{more}"


def headline(verdict: Verdict, *, in_words: bool = False) -> str:
    """How often the worst attacker fools the model; if the audit fails, on what it does, and what must hold.

    Args:
        verdict: of an audit.
        in_words: say the budget as a change of the picture, and leave out what a rate of fooled images is called.
    """
    subject, reason = verdict.subject, verdict.reason
    if reason is None:
        return _threat(verdict, subject.worst, in_words=in_words)
    must = _capital(reason.must)
    if math.isnan(reason.value):
        return f"{_threat(verdict, subject.worst, in_words=in_words)} {must}, but {reason.detail}."
    if reason.surrogate is None:
        return f"{_opening(subject.name)}: {reason.must}; it is {reason.detail}."
    if in_words and reason.gate.measure == "asr":
        must = f"That must be {reason.must.partition(' must be ')[2]}"
    return f"{_threat(verdict, told_of(verdict), in_words=in_words)} {must}."


def beside(verdict: Verdict) -> str:
    """ε50 and relative ASR from the surrogate that the headline speaks of; nothing without one."""
    reading = told_of(verdict)
    if reading is None:
        return ""
    subject = verdict.subject
    curve = next(curve for curve in subject.curves if curve.surrogate == reading.surrogate)
    relative = f"relative ASR {relative_text(reading)}"
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


def _threat(verdict: Verdict, reading: Reading | None, *, in_words: bool = False) -> str:
    """How often one attacker fools the model."""
    subject, opening = verdict.subject, _opening(verdict.subject.name)
    if reading is None and all(other.white_box for other in subject.readings) and subject.readings:
        return f"{opening}: only the model itself was a surrogate; what it shows is an upper bound."
    if reading is None:
        return f"{opening}: surrogate and model classify no image correctly alike; nothing can be said."
    at = f"after {change(reading.epsilon, verdict.norm)}" if in_words else f"at {budget(reading.epsilon)}"
    return (
        f"Attacks made on {holder(reading.surrogate)} fool {holder(subject.name)} on {percent(reading.asr)} "
        f"{interval(reading.asr_low, reading.asr_high)} of {plural(reading.images_both_correct, 'image')} {at}."
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
    """How the model compares with what it was made of, in a few words; nothing where that was not attacked."""
    sides = _sides(verdict)
    words = {
        "expert": "its experts" if len(verdict.subject.by_task) > 1 else "its expert",
        "pretrained": "its base",
    }
    below = [words[name] for name, side in sides.items() if side == "more"]
    above = [words[name] for name, side in sides.items() if side == "less"]
    said = [f"riskier than {' and '.join(above)}"] if above else []
    said += [f"safer than {' and '.join(below)}"] if below else []
    return _capital("; ".join(said) or ("not told apart" if sides else ""))


def _sides(verdict: Verdict) -> dict[str, str]:
    """Ingredient → whether it is fooled ``more`` often than the model, ``less`` often, or ``alike``."""
    found: dict[str, str] = {}
    for model in verdict.made_of:
        for pair in verdict.beside_ingredients.pairs if verdict.beside_ingredients else ():
            if {pair.first, pair.second} == {model.name, verdict.subject.name}:
                found[model.name] = "alike" if not pair.apart else "less" if pair.first == model.name else "more"
    return found


def made_of(verdict: Verdict) -> str:
    """How often what the model was made of is fooled, and how that was compared; nothing if unknown."""
    said = beside_made_of(verdict)
    if not said or verdict.beside_ingredients is None:
        return ""
    pairs = plural(len(verdict.beside_ingredients.pairs), "pair")
    return f"{said.removesuffix('.')} (paired on the same images, corrected for {pairs})."


def beside_made_of(verdict: Verdict) -> str:
    """How often what the model was made of is fooled, each by its own worst attacker; nothing if unknown."""
    sides, said = _sides(verdict), []
    it = holder(verdict.subject.name)
    how = {
        "less": f", less often than {it}",
        "more": f", more often than {it}",
        "alike": f" and cannot be told apart from {it}",
    }
    for model in verdict.made_of:
        if model.worst is not None and model.name in sides:
            rate = with_interval(model.worst.asr, model.worst.asr_low, model.worst.asr_high)
            images = plural(model.worst.images_both_correct, "image")
            said.append(f"{holder(model.name)} is fooled on {rate} of {images}{how[sides[model.name]]}")
    return f"{_capital('; '.join(said))}." if said else ""


def _made_of(verdict: Verdict) -> list[str]:
    said = made_of(verdict)
    return [said] if said else []


def _accuracy(model: ModelVerdict) -> str:
    mean, tasks = model.clean_accuracy, plural(len(model.by_task), "task")
    over = f", the mean over {tasks}" if len(model.by_task) > 1 else ""
    rate = with_interval(mean.value, mean.low, mean.high, 1)
    return f"Clean accuracy of {holder(model.name)}: {rate}{over}."


def _worst(verdict: Verdict) -> list[str]:
    """Who the worst attacker is, if the headline speaks of another, and how the attack is made."""
    worst, told = verdict.subject.worst, told_of(verdict)
    if worst is None:
        return []
    all_images = with_interval(worst.asr_all, worst.asr_all_low, worst.asr_all_high, 1)
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
        only = f"Of the {len(verdict.models)} models, only {holder(verdict.recommended)} is {within}"
        return [f"{only}: no other is compared."]
    assert verdict.standing is not None
    images, pairs = plural(verdict.standing.images, "image"), plural(len(verdict.standing.pairs), "pair")
    said = f"Safest of the {count} models {within}: {holder(verdict.recommended)}"
    how = f"each under its own worst attacker, on the same {images}, corrected for {pairs}"
    if verdict.as_safe:
        return [
            f"{said}; {listing([holder(name) for name in verdict.as_safe])} cannot be told apart from it ({how})."
        ]
    return [f"{said}; every other is fooled more often ({how})."]


def _capital(text: str) -> str:
    """As a sentence or a headline begins."""
    return f"{text[:1].upper()}{text[1:]}"


def _opening(name: str) -> str:
    """A model at the beginning of a sentence; a name of its own is not changed."""
    words = holder(name)
    return name if words == name else _capital(words)


def relative_text(reading: Reading) -> str:
    """A relative ASR with its interval."""
    return ratio(reading.relative_asr, reading.relative_asr_low, reading.relative_asr_high, "unknown")


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
