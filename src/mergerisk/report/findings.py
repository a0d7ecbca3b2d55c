"""The verdict in plain words, computed from the tables and no surer than their intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.cells import from_first, from_outside
from mergerisk.report.epsilon50 import ALL, MedianEpsilon50, epsilon50_range, epsilon50_text
from mergerisk.report.formatting import budget, interval, listing, percent, plural, with_interval
from mergerisk.report.naming import holder
from mergerisk.report.risk import BudgetOverview, Mean, mean_over_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from mergerisk.report.cells import Axes

MOSTLY_SATURATED = 0.5
"""Share of saturated cells from which a budget is said to show little."""


@dataclass(frozen=True)
class Finding:
    """One card of the verdict.

    Attributes:
        question: what the card answers.
        headline: the answer in a few words.
        sentence: the figures behind it, and what they do not show.
        clear: whether the intervals bear the headline out.
    """

    question: str
    headline: str
    sentence: str
    clear: bool


@dataclass(frozen=True)
class Leader:
    """Who leads a ranking, and who cannot be told apart from the leader."""

    name: str
    mean: Mean
    rivals: tuple[str, ...]
    ranked: int

    @property
    def clear(self) -> bool:
        """Whether there was a choice and no rival's interval overlaps the leader's."""
        return self.ranked > 1 and not self.rivals


def leader(means: Mapping[str, Mean], lowest: bool) -> Leader | None:
    """The lowest or highest mean; the first named wins an exact tie, and the others are then its rivals."""
    known = {name: mean for name, mean in means.items() if not math.isnan(mean.value)}
    if not known:
        return None
    name = min(known, key=lambda key: known[key].value if lowest else -known[key].value)
    rivals = [other for other in known if other != name and known[other].overlaps(known[name])]
    rivals.sort(key=lambda key: known[key].value if lowest else -known[key].value)
    return Leader(name, known[name], tuple(rivals), len(known))


def verdict(
    cells: pd.DataFrame,
    epsilon50: Mapping[tuple[str, str, str, str], MedianEpsilon50],
    axes: Axes,
    overview: tuple[BudgetOverview, ...],
    surrogate: str,
    epsilon: float,
) -> tuple[Finding, ...]:
    """What else the figures say, for one surrogate and budget; fewer where the data cannot answer."""
    findings = (
        _highest_epsilon50(epsilon50, axes, surrogate),
        _told_apart(overview),
        _strongest_attack(cells, axes, epsilon),
    )
    return tuple(finding for finding in findings if finding is not None)


def strongest(cells: pd.DataFrame, axes: Axes, epsilon: float, column: str) -> Leader | None:
    """Who has the highest mean ASR against merging methods at one budget: of attacks those made on the surrogate
    spoken of first, of surrogates those that are no merged model."""
    here = from_first(cells, axes) if column == "attack" else from_outside(cells, axes)
    here = here[here["epsilon"] == epsilon].dropna(subset=["asr"])
    order = axes.attacks if column == "attack" else axes.surrogates
    means = {
        name: mean_over_tasks(here[here[column] == name], "asr", "asr_low", "asr_high")
        for name in order
        if (here[column] == name).any()
    }
    return leader(means, lowest=False)


def _highest_epsilon50(
    table: Mapping[tuple[str, str, str, str], MedianEpsilon50], axes: Axes, surrogate: str
) -> Finding | None:
    """The method with the largest median ε50, and whether others can be told from it."""
    medians = {
        name: table[key]
        for name in axes.methods
        if name != surrogate and (key := (surrogate, ALL, ALL, name)) in table
    }
    means = {name: Mean(found.value, found.low, found.high, found.curves) for name, found in medians.items()}
    found = leader(means, lowest=False)
    if found is None:
        return None
    median = medians[found.name]
    ties = [name for name in medians if name != found.name and medians[name].value == median.value]
    question = "Which method needs the largest budget to be fooled half the time?"
    value = epsilon50_text(median.value, axes.epsilons)
    text = (
        f"Under attacks made on {holder(surrogate)} its median ε50 over {plural(median.curves, 'curve')} of "
        f"tasks and attacks is {value} ({epsilon50_range(median, axes.epsilons)}). "
    )
    if ties and math.isinf(median.value):
        text += f"The same holds for {listing(ties)}: the measured budgets do not separate them."
        shared = "None stands out" if len(ties) == len(medians) - 1 else listing([found.name, *ties], limit=1)
        return Finding(question, shared, text, clear=False)
    return Finding(question, _headline(found), text + _rivals(found), found.clear)


def _told_apart(overview: tuple[BudgetOverview, ...]) -> Finding | None:
    """The budget at which most pairs of methods are told apart; None where there are no pairs."""
    usable = [row for row in overview if row.pairs]
    if not usable:
        return None
    best = max(usable, key=lambda row: (row.pairs_apart, -row.saturated))
    if best.pairs_apart:
        noun = "pair" if best.pairs == 1 else "pairs"
        headline = f"ε = {budget(best.epsilon)}"
        text = (
            f"There {best.pairs_apart} of {best.pairs} {noun} of merging methods are told apart under the worst "
            "attacker, on the same images"
        ) + (", the most of any measured budget." if len(usable) > 1 else ".")
    else:
        headline = "At none"
        text = "At no measured budget are any two merging methods told apart under the worst attacker."
    full = [row for row in overview if row.saturated >= MOSTLY_SATURATED]
    if full:
        where = listing([f"{budget(row.epsilon)} ({percent(row.saturated)})" for row in full], limit=4)
        text += f" Most cells are saturated at ε = {where}: an attack that fools everything ranks nothing."
    return Finding("At which budget can methods be told apart?", headline, text, bool(best.pairs_apart))


def _strongest_attack(cells: pd.DataFrame, axes: Axes, epsilon: float) -> Finding | None:
    """The attack that fools merges most often, and whose attacks do."""
    attack = strongest(cells, axes, epsilon, "attack")
    if attack is None:
        return None
    made = f", made on {holder(axes.surrogates[0])}," if axes.surrogates[1:] else ""
    text = (
        f"At ε = {budget(epsilon)}{made} it fools merged models on {percent(attack.mean.value)} "
        f"{interval(attack.mean.low, attack.mean.high)} (mean of "
        f"{plural(attack.mean.cells, 'cell')}) of the images they and the surrogate get right. "
        f"{_rivals(attack)}"
    )
    made_on = strongest(cells, axes, epsilon, "surrogate")
    if made_on is not None and made_on.ranked > 1:
        success = with_interval(made_on.mean.value, made_on.mean.low, made_on.mean.high)
        doubt = "" if made_on.clear else ", though intervals overlap"
        text += (
            f" Of all attacks, those made on {holder(made_on.name)} are the most successful ({success}){doubt}."
        )
    return Finding("Which attack transfers best?", _headline(attack), text, attack.clear)


def _headline(found: Leader) -> str:
    """The leader's name, unless nobody can be told from it."""
    if found.ranked > 2 and len(found.rivals) == found.ranked - 1:
        return f"None stands out ({found.name} leads)"
    return found.name


def _rivals(found: Leader) -> str:
    """Who cannot be told from the leader, in a sentence."""
    if found.ranked == 1:
        return "It is the only one measured, so there is nothing to compare it with."
    if not found.rivals:
        return "Its interval overlaps no other."
    if len(found.rivals) == found.ranked - 1:
        return "All intervals overlap its own: the order may be chance."
    return f"Its interval overlaps {_possessive(found.rivals)}: they cannot be told apart here."


def _possessive(names: tuple[str, ...]) -> str:
    return f"that of {names[0]}" if len(names) == 1 else f"those of {listing(list(names))}"
