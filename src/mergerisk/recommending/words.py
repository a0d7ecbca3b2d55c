"""What a recommendation is said in: terminal and page say the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mergerisk.recommending.scoring import front
from mergerisk.report.formatting import MISSING, budget, duration, listing, percent, plural
from mergerisk.report.naming import holder
from mergerisk.report.pareto import TOLERANCE
from mergerisk.report.price_words import accuracy_text, half_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.recommending.result import Beside, Measured, Recommendation
    from mergerisk.recommending.scoring import Score

COLUMNS = (
    "recipe", "clean accuracy", "ε50, worst attacker", "attack made on", "by", "unaware ε50", "in the search",
    "checks", "better than",
)  # fmt: skip
"""Of a table of recipes."""
SEARCHED = ("recipe", "clean accuracy, ε50 in the search", "measured as")
"""Of a table of the best trades in the search."""
BESIDE = ("recipe", "beside", "clean accuracy, points", "ε50, times", "better on", "worse on")
"""Of a table of recipes beside the study's own merges."""

_AXES = {"accuracy": "clean accuracy", "epsilon50": "ε50"}


def headline(made: Recommendation) -> str:
    """What is recommended, and what it is better than."""
    best = made.best
    return (
        f"{best.name}: {percent(best.accuracy.value, 1)} clean accuracy, ε50 "
        f"{half_text(best.epsilon50, made.epsilons)} under its worst attacker. {standing(made, best)}"
    )


def standing(made: Recommendation, one: Measured) -> str:
    """Which of the study's merges a recipe beats, in a sentence."""
    others = [beside for beside in made.beside if beside.recipe == one.name]
    if not others:
        return "The study has no merge to compare it with."
    beaten = [beside for beside in others if beside.beats]
    if len(beaten) == len(others):
        what = "the study’s merge" if len(others) == 1 else f"each of the study’s {len(others)} merges"
        return f"It is better than {what} on one axis at least, and worse on none, beyond chance."
    lost = [beside.other for beside in others if beside.worse]
    open_ = [beside.other for beside in others if not beside.beats and not beside.worse]
    parts = [f"It is better than {len(beaten)} of the study’s {len(others)} merges on one axis and worse on none"]
    parts += [f"worse on one than {listing(lost)}"] if lost else []
    parts += [f"not told apart from {listing(open_)}"] if open_ else []
    return f"{'; '.join(parts)}."


def search_line(made: Recommendation) -> str:
    """What was done to find it."""
    searching, measuring = made.seconds
    return (
        f"{plural(len(made.tried), 'recipe')} tried on held-out images in {duration(round(searching))}, "
        f"{plural(len(made.recipes), 'best trade')} measured on attacked images in {duration(round(measuring))}."
    )


def others(made: Recommendation) -> list[str]:
    """A sentence for every other recipe that was measured and beats all of the study's merges."""
    count = len(made.references)
    return [
        f"{one.name}, measured too, also beats all {count}: one of {len(made.recipes)} looks, each may err."
        for one in made.recipes
        if one.name != made.recommended and count > 1 and len(made.beaten(one.name)) == count
    ]


def rows(made: Recommendation) -> list[tuple[str, ...]]:
    """The recipes, the most accurate first; see `COLUMNS`."""
    return [_row(made, one) for one in sorted(made.recipes, key=lambda one: -one.accuracy.value)]


def reference_rows(made: Recommendation) -> list[tuple[str, ...]]:
    """The study's own merges that are no recipes of these, likewise."""
    shown = {one.name for one in made.recipes}
    left = [one for one in made.references if one.name not in shown]
    return [_row(made, one) for one in sorted(left, key=lambda one: -one.accuracy.value)]


def _row(made: Recommendation, one: Measured) -> tuple[str, ...]:
    mark = " (recommended)" if one.recipe is not None and one.name == made.recommended else ""
    return (
        f"{one.name}{mark}",
        accuracy_text(one.accuracy),
        half_text(one.epsilon50, made.epsilons),
        holder(one.attacker),
        one.attack,
        MISSING if one.unaware is None else half_text(one.unaware, made.epsilons),
        MISSING if one.searched is None else score_text(one.searched, made.epsilons),
        checks_text(one),
        f"{len(made.beaten(one.name))} of {sum(beside.recipe == one.name for beside in made.beside)}"
        if one.recipe is not None
        else MISSING,
    )


def searched_rows(made: Recommendation) -> list[tuple[str, ...]]:
    """The best trades as the search saw them, the most accurate first; see `SEARCHED`."""
    names = {one.recipe: one.name for one in made.recipes}
    return [
        (str(one.recipe), score_text(one.score, made.epsilons), names.get(one.recipe, MISSING))
        for one in front(made.tried)
    ]


def checks_text(one: Measured) -> str:
    """Whether its defenses may be said to defend, in short."""
    if one.checks is None:
        return MISSING
    return f"{len(one.checks)} not passed" if one.checks else "all passed"


def not_shown(one: Measured) -> str:
    """The checks that keep its defenses from being said to defend, in a sentence; empty where there are none."""
    if not one.checks:
        return ""
    return f"Not shown to defend: {', '.join(one.checks)} failed or missing; the run's report says how."


def score_text(score: Score, epsilons: Sequence[float]) -> str:
    """Where the search saw a recipe."""
    if score.safety > epsilons[-1]:
        half = f">{budget(epsilons[-1])}"
    elif score.safety < epsilons[0]:
        half = f"<{budget(epsilons[0])}"
    else:
        half = budget(score.safety)
    return f"{percent(score.accuracy, 1)}, {half}"


def beside_rows(made: Recommendation, recipe: str) -> list[tuple[str, ...]]:
    """A recipe beside every merge of the study; see `BESIDE`."""
    return [_beside(one) for one in made.beside if one.recipe == recipe]


def _beside(one: Beside) -> tuple[str, ...]:
    accuracy, gain = one.accuracy, one.gain
    sign = {"exact": "", "at_least": "≥ ", "at_most": "≤ ", "unknown": ""}[one.bound]
    return (
        one.recipe,
        one.other,
        MISSING
        if math.isnan(accuracy.value)
        else f"{100 * accuracy.value:+.1f} [{100 * accuracy.low:+.1f}, {100 * accuracy.high:+.1f}]",
        MISSING
        if math.isnan(gain.value) or one.bound == "unknown"
        else f"{sign}×{gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]",
        _axes(one.better),
        _axes(one.worse),
    )


def _axes(names: Sequence[str]) -> str:
    return " and ".join(_AXES[name] for name in names) or MISSING


def basis(made: Recommendation) -> str:
    """What the figures are."""
    return (
        f"Recipes were chosen on held-out images, at most {made.images} a task, under {made.attack}; these "
        "figures are of attacked images that the search never saw, under every attack of the study, seen once. "
        "What was chosen for its figures looks better in the search than it is. Worst attacker: of those who hold "
        "no merge, whether they know the defense or not. Recommended is what the search saw as the safest of its "
        f"best trades that give up at most {100 * TOLERANCE:g} points of clean accuracy. Better and worse: on the "
        "same images, beyond chance; in brackets 95% intervals, over images."
    )
