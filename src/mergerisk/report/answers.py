"""The three answers a reader comes for: how often is it fooled, is it safer than its ingredients, which one?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mergerisk.report.findings import Finding
from mergerisk.report.formatting import count, listing, percent, plural, with_interval
from mergerisk.report.naming import holder
from mergerisk.report.pareto import TOLERANCE, pareto_front

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.report.cells import Axes
    from mergerisk.report.risk import Mean
    from mergerisk.report.worst import WorstAttacker
    from mergerisk.statistics import Standings


def answers(
    worst: Mapping[str, WorstAttacker],
    accuracies: Mapping[str, Mean],
    axes: Axes,
    standing: Standings | None,
    beside: Standings | None,
    change: str,
    *,
    judged: bool = True,
) -> tuple[Finding, ...]:
    """Those that the figures give.

    Args:
        worst: models under their worst attacker.
        accuracies: mean clean accuracy of models.
        axes: of the study.
        standing: how the merging methods stand under the worst attacker.
        beside: the same with the ingredients among them.
        change: the budget, in words.
        judged: whether there is something to judge; nothing is said of a price of safety otherwise.
    """
    found = (
        _how_often(worst, axes, change),
        _safer_than_ingredients(worst, axes, beside),
        _which(worst, accuracies, standing, judged=judged),
    )
    return tuple(answer for answer in found if answer is not None)


def _how_often(worst: Mapping[str, WorstAttacker], axes: Axes, change: str) -> Finding | None:
    """How often the worst attacker fools a merge: the least fooled and the most; None where no rate is known."""
    known = {name: worst[name] for name in axes.methods if name in worst}
    if not known:
        return None
    least, most = (pick(known, key=lambda name: known[name].asr.value) for pick in (min, max))
    low, high = percent(known[least].asr.value), percent(known[most].asr.value)
    if len(known) == 1:
        text = (
            f"of the images that {least} gets right, after {change}, by attacks made on "
            f"{holder(known[least].surrogate)}: {rate(known[least])}."
        )
        return Finding("How often is it fooled?", low, text, clear=True)
    text = (
        f"of the images it gets right, by its worst attacker, after {change}. Least often {least}, "
        f"{rate(known[least])}; most often {most}, {rate(known[most])}."
    )
    return Finding("How often is a merge fooled?", low if low == high else f"{low} to {high}", text, clear=True)


def rate(found: WorstAttacker) -> str:
    """An ASR with its interval and the images that it counts."""
    mean = found.asr
    return f"{with_interval(mean.value, mean.low, mean.high, 1)} of {count(found.images)}"


def _safer_than_ingredients(
    worst: Mapping[str, WorstAttacker], axes: Axes, beside: Standings | None
) -> Finding | None:
    """How merges stand beside the base and the experts they were made of; None where nothing can be compared."""
    question = "Is a merge safer than what it was made of?"
    references = [name for name in ("expert", "pretrained") if name in worst]
    if beside is None or not references:
        return None
    ranked = {method.name for method in beside.methods}
    methods = [name for name in axes.methods if name in worst and name in ranked]
    sides = {name: _sides(beside, name, methods) for name in references if name in ranked}
    if not methods or not sides:
        return None
    said = [_against(worst[name], name, *sides[name]) for name in sides]
    clear = all(len(safer) + len(riskier) == len(methods) for safer, riskier, _ in sides.values())
    return Finding(question, _in_a_word(sides, len(methods)), " ".join(said), clear)


def _sides(beside: Standings, reference: str, methods: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Methods fooled less often than an ingredient, more often, and those that cannot be told apart from it."""
    safer: list[str] = []
    riskier: list[str] = []
    alike: list[str] = []
    for pair in beside.pairs:
        if reference not in (pair.first, pair.second):
            continue
        other = pair.second if pair.first == reference else pair.first
        if other in methods:
            (alike if not pair.apart else safer if other == pair.first else riskier).append(other)
    return safer, riskier, alike


def _in_a_word(sides: Mapping[str, tuple[list[str], list[str], list[str]]], count: int) -> str:
    """The headline: safer than all references, riskier than all, or neither."""
    words = {"expert": "its experts", "pretrained": "its base"}
    below = [words[name] for name, (safer, _, _) in sides.items() if len(safer) == count]
    above = [words[name] for name, (_, riskier, _) in sides.items() if len(riskier) == count]
    if below and len(below) == len(sides):
        return f"Safer than {' and '.join(below)}"
    if above and len(above) == len(sides):
        return f"Riskier than {' and '.join(above)}"
    if above or below:
        return "; ".join(
            [
                *(f"riskier than {' and '.join(above)}" for _ in above[:1]),
                *(f"safer than {' and '.join(below)}" for _ in below[:1]),
            ]
        ).capitalize()
    if not any(safer or riskier for safer, riskier, _ in sides.values()):
        return "Not told apart"
    return "It depends on the method"


def _against(reference: WorstAttacker, name: str, safer: list[str], riskier: list[str], alike: list[str]) -> str:
    """One ingredient and how the merges stand to it."""
    who = {"expert": "Experts are", "pretrained": "The base is"}[name]
    said = f"{who} fooled on {rate(reference)} images; "
    if len(safer) + len(riskier) + len(alike) == 1:
        how = "less often" if safer else "more often" if riskier else "cannot be told apart from it"
        return f"{said}the merge {how}."
    if not safer and not alike:
        return said + "every merge more often."
    if not riskier and not alike:
        return said + "every merge less often."
    parts = [f"{_named(safer)} less often"] if safer else []
    parts += [f"{_named(riskier)} more often"] if riskier else []
    if not parts:
        return f"{said}no merge can be told apart from it."
    parts += [f"{_named(alike)} cannot be told apart from it"] if alike else []
    return f"{said}{', '.join(parts)}."


def _named(names: list[str]) -> str:
    """One by its name, more by their number; the picture beside the sentence has them all."""
    return names[0] if len(names) == 1 else f"{len(names)} merges"


def _which(
    worst: Mapping[str, WorstAttacker],
    accuracies: Mapping[str, Mean],
    standing: Standings | None,
    *,
    judged: bool,
) -> Finding | None:
    """The safest merge for its accuracy, and who cannot be told from it; None where methods are not ranked."""
    if standing is None:
        return None
    question, name = "Which is the safest for the accuracy I need?", standing.leader.name
    risks = {method.name: method.value for method in standing.methods}
    known = {
        one: accuracies[one].value for one in risks if one in accuracies and not math.isnan(accuracies[one].value)
    }
    front = pareto_front({one: (known[one], risks[one]) for one in known})
    if len(front) < 2 or not judged:
        also = ", the highest" if judged and len(risks) > 1 and front == (name,) else ""
        text = f"Fooled the least: {_figures(name, worst, accuracies)}{also}. {_told(standing, name)}"
        return Finding(question, safest_headline(standing), text, standing.clear)
    best = max(known.values())
    pick = min((one for one in known if known[one] >= best - TOLERANCE), key=lambda one: risks[one])
    text = (
        f"Fooled the least within {100 * TOLERANCE:g} points of the best clean accuracy: "
        f"{_figures(pick, worst, accuracies)}. {_told(standing, pick)}"
    )
    less = [one for one in reversed(front) if known[one] < known[pick] and risks[one] < risks[pick]]
    if less:
        figures = "; ".join(f"{one}, {_figures(one, worst, accuracies)}" for one in less[:2])
        text += f" Safer for less accuracy: {figures}."
    return Finding(question, pick, text, clear=not alike_to(standing, pick))


def _figures(name: str, worst: Mapping[str, WorstAttacker], accuracies: Mapping[str, Mean]) -> str:
    """A method's rate and clean accuracy; what is not known is left out."""
    mean = accuracies.get(name)
    said = [rate(worst[name])] if name in worst else []
    if mean is not None and not math.isnan(mean.value):
        said.append(f"clean accuracy {with_interval(mean.value, mean.low, mean.high, 1)}")
    return "; ".join(said)


def _told(standing: Standings, name: str) -> str:
    """From which methods one can be told apart."""
    if len(standing.methods) == 1:
        return "It is the only one measured."
    alike = alike_to(standing, name)
    if not alike:
        return "It can be told apart from every other."
    if len(alike) == len(standing.methods) - 1:
        return "No other can be told apart from it: the order may be chance."
    return f"It cannot be told apart from {listing(alike)}."


def alike_to(found: Standings, name: str) -> list[str]:
    """Methods that cannot be told apart from one, in the order in which they stand."""
    together = {
        other
        for pair in found.pairs
        for one, other in ((pair.first, pair.second), (pair.second, pair.first))
        if one == name and not pair.apart
    }
    return [method.name for method in found.methods if method.name in together]


def safest_headline(standing: Standings) -> str:
    """The safest method in a few words; none where all are alike."""
    if len(standing.methods) > 2 and len(standing.alike) == len(standing.methods) - 1:
        return f"None stands out ({standing.leader.name} leads)"
    return standing.leader.name


def told_apart(standing: Standings) -> str:
    """Who cannot be told from the safest method, and by what."""
    if len(standing.methods) == 1:
        return "It is the only one measured, so there is nothing to compare it with."
    if not standing.alike:
        return f"Every other method is fooled more often ({_how(standing)})."
    if len(standing.alike) == len(standing.methods) - 1:
        return f"No other can be told apart from it ({_how(standing)}): the order may be chance."
    return f"It cannot be told apart from {listing(list(standing.alike), limit=6)} ({_how(standing)})."


def _how(standing: Standings) -> str:
    return f"paired on the same images, corrected for {plural(len(standing.pairs), 'pair')}"


def how_compared(standing: Standings | None, beside: Standings | None) -> str:
    """What stands behind "told apart" in the answers, in a sentence; empty where nothing was compared."""
    pairs = [plural(len(found.pairs), "pair") for found in (standing, beside) if found and found.pairs]
    if not pairs:
        return ""
    more = f" ({pairs[1]} with what they were made of)" if pairs[1:] else ""
    return f"Two are told apart by a bootstrap, paired on the same images and corrected for {pairs[0]}{more}."
