"""The words for what explains transfer: terminal, page, exports and JSON call them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mergerisk.report.formatting import listing, percent, plural
from mergerisk.report.measure_words import words_of
from mergerisk.report.naming import holder
from mergerisk.statistics.explaining import Correlation, Mediated, Odds, Predicted, Unsaid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mergerisk.statistics.explaining import Explained, Explanation, Explanations, Level, NullLine


def correlation_text(found: Correlation | Unsaid) -> str:
    """``+0.52 [+0.46, +0.58]``, or a dash."""
    if isinstance(found, Unsaid):
        return "–"
    return f"{_signed(found.value)} [{_signed(found.low)}, {_signed(found.high)}]"


def odds_text(found: Odds | Unsaid) -> str:
    """``×2.1 [1.5, 2.8]``, or a dash."""
    if isinstance(found, Unsaid):
        return "–"
    return f"×{found.ratio:.2g} [{found.low:.2g}, {found.high:.2g}]"


def predicted_text(found: Predicted | Unsaid) -> str:
    """``0.71 [0.66, 0.76]``, or a dash."""
    return "–" if isinstance(found, Unsaid) else f"{found.auc:.2f} [{found.low:.2f}, {found.high:.2f}]"


def r2_text(found: Predicted | Unsaid) -> str:
    """R² of a left-out method's rates, or a dash."""
    return "–" if isinstance(found, Unsaid) or math.isnan(found.r2) else _signed(found.r2)


def mediated_text(found: Mediated | Unsaid) -> str:
    """``40% [10%, 70%]``, or a dash."""
    if isinstance(found, Unsaid) or math.isnan(found.share):
        return "–"
    return f"{percent(found.share)} [{percent(found.low)}, {percent(found.high)}]"


def answers_text(found: Explained) -> str:
    """At which levels it goes with what happens, in a word each."""
    yes = [_LEVEL[level] for level, answer in found.answers.items() if answer == "yes"]
    if yes:
        return ", ".join(yes)
    return "cannot be told" if set(found.answers.values()) == {"untold"} else "not shown"


_LEVEL = {"methods": "methods", "same_image": "same image", "images": "images"}


def attacker_words(found: Explanation) -> str:
    """Whose attacks an explanation is of."""
    if not found.chosen:
        return f"attacks made on {holder(found.attacker)}"
    held = list(dict.fromkeys(found.chosen.values()))
    if len(held) == 1:
        return f"the worst attacker, who holds {holder(held[0])}"
    return f"each method’s worst attacker ({listing([holder(name) for name in held])})"


def sentences(found: Explanation) -> tuple[str, ...]:
    """What explains who is fooled, and how sure that is: a sentence per question."""
    return (_images(found), _same_image(found), _methods(found))


def in_one_sentence(found: Explanation) -> str:
    """What explains most, at a glance."""
    first = found.measures[0]
    if not first.explains:
        return "Nothing that was measured could be shown to go with who is fooled here."
    named = [words_of(one.measure).title for one in different([m for m in found.measures if m.explains])[:3]]
    it = "it" if len(named) == 1 else "any of them"
    return f"What goes with who is fooled here: {listing(named)}. That does not make {it} a cause."


def _first(found: Explanation, level: Level, size: Callable[[Explained], float]) -> list[Explained]:
    """The two that go most with what happens at a level, of those that say the same in two ways one."""
    known = [m for m in found.measures if m.answers[level] == "yes"]
    return different(sorted(known, key=size, reverse=True))[:2]


def different(measures: Sequence[Explained]) -> list[Explained]:
    """Those of which nobody before says the same in other units."""
    found: dict[str, Explained] = {}
    for one in measures:
        found.setdefault(words_of(one.measure).larger, one)
    return [*found.values()]


def _images(found: Explanation) -> str:
    """What goes with which of one method's images are fooled."""
    ranked = _first(found, "images", lambda m: abs(getattr(m.images, "value", 0.0)))
    if not ranked:
        return _none(found, "images", "Which of one method’s images are fooled")
    parts = [
        f"those with {words_of(m.measure).larger} are fooled {_more(c.value)} often (ρ {correlation_text(c)})"
        for m in ranked
        if isinstance(c := m.images, Correlation)
    ]
    return f"Of one method’s images, {'; '.join(parts)}."


def _same_image(found: Explanation) -> str:
    """What goes with which method an image fools."""
    ranked = _first(found, "same_image", lambda m: abs(math.log(max(getattr(m.matched, "ratio", 1.0), 1e-9))))
    if not ranked:
        return _none(found, "same_image", "Which method an image fools")
    parts = [
        f"{words_of(m.measure).larger} than is usual for them are fooled {_more(o.ratio - 1)} often (odds "
        f"{odds_text(o)} per standard deviation, clean accuracy held fixed{_tied(o)})"
        for m in ranked
        if isinstance(o := m.matched, Odds)
    ]
    return f"On the same image, methods with {'; with '.join(parts)}."


def _tied(odds: Odds) -> str:
    """What else the measure can hardly be told from; empty where there is nothing."""
    if not odds.closest or odds.closeness < _CLOSE:
        return ""
    return f"; hardly to be told from {words_of(odds.closest).title}"


_CLOSE = 0.8
"""A correlation on the same image from which two measures can hardly be told apart."""


def _methods(found: Explanation) -> str:
    """What goes with how safe a method is."""
    ranked = _first(found, "methods", lambda m: abs(getattr(m.epsilon50, "value", 0.0)))
    if not ranked:
        return _none(found, "methods", "Which method is safer")
    parts = [
        f"those with {words_of(m.measure).larger} are fooled by {'smaller' if c.value < 0 else 'larger'} changes "
        f"(ρ with ε50 {correlation_text(c)})"
        for m in ranked
        if isinstance(c := m.epsilon50, Correlation)
    ]
    return f"Of the {len(found.methods)} methods, {'; '.join(parts)}."


def _none(found: Explanation, level: Level, what: str) -> str:
    """Why nothing goes with an outcome: nothing was shown to, too few methods, or nothing to compare."""
    answers = {m.answers[level] for m in found.measures}
    if "no" in answers:
        return f"{what} could not be shown to go with anything measured."
    reasons = {reason(m.epsilon50, len(found.methods)) for m in found.measures if isinstance(m.epsilon50, Unsaid)}
    if level == "methods" and any(isinstance(m.epsilon50, Correlation) for m in found.measures):
        return (
            f"{what} cannot be told to go with anything: {plural(len(found.methods), 'method')} are too few to "
            f"tell among {plural(len(found.measures), 'measure')}."
        )
    return f"{what} cannot be told to go with anything: {listing(sorted(reasons)) or 'nothing could be compared'}."


def _more(value: float) -> str:
    return "more" if value > 0 else "less"


def reason(unsaid: Unsaid, methods: int = 0) -> str:
    """Why there is no figure."""
    return {
        "few_methods": f"{plural(methods, 'method')}, and it takes more to compare",
        "few_images": f"only {unsaid.detail} images count",
        "all_missing": "it is missing for all of these",
        "by_image": "the same for all methods, as it is about the attacker’s model alone",
        "by_method": "one value per method: compared between methods only",
        "constant": "the same everywhere",
        "alike": "every image fools all of the methods or none",
        "refused": unsaid.detail,
    }[unsaid.why]


def unsaid_lines(found: Explanation) -> tuple[str, ...]:
    """What cannot be said, with the reason: a line per reason."""
    groups: dict[str, list[str]] = {}
    for m in found.measures:
        parts = {
            "between methods": m.epsilon50,
            "on the same image": m.matched,
            "among images": m.images,
        }
        own = {
            where: reason(part, len(found.methods)) for where, part in parts.items() if isinstance(part, Unsaid)
        }
        for why in dict.fromkeys(own.values()):
            where = [place for place, text in own.items() if text == why]
            groups.setdefault(f"{'' if len(where) == len(parts) else f'{listing(where)}: '}{why}", []).append(
                m.measure
            )
    untold = [
        m for m in found.measures if isinstance(m.epsilon50, Correlation) and m.answers["methods"] == "untold"
    ]
    if untold:
        text = (
            f"between methods: {plural(len(found.methods), 'method')} are too few for any order of them to pass "
            f"the correction for {plural(len(found.measures), 'measure')}"
        )
        groups.setdefault(text, []).extend(m.measure for m in untold)
    return tuple(f"{listing(names)}: {why}." for why, names in groups.items())


def missing_lines(found: Explanation) -> tuple[str, ...]:
    """How many values are missing for which reason."""
    return tuple(
        f"{m.measure}: {count:,} missing, {why}." for m in found.measures for why, count in m.missing.items()
    )


def null_words(null: NullLine) -> str:
    """A null line in words."""
    kinds = {
        "unrelated": "an expert of another task",
        "architecture": "a model of another architecture",
        "noise": "random noise of the same ε",
    }
    return kinds[null.kind]


def nulls_text(found: Explanations) -> str:
    """Which null lines are there, and how to get the others."""
    there = [f"{null_words(null)} ({null.surrogate})" for null in found.nulls if null.surrogate]
    lacking = [null_words(null) for null in found.nulls if not null.surrogate]
    parts = [f"Shown for comparison: {listing(there)}."] if there else []
    if lacking:
        parts.append(f"Not in this study: {listing(lacking)}.")
    return " ".join(parts)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
