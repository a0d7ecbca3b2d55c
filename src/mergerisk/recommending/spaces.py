"""From what a study says to the recipes among which one is looked for, all of them seen to be possible."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.errors import Fault, UserError, place
from mergerisk.merging.catalogue import METHODS, split_name
from mergerisk.recommending import ranges
from mergerisk.recommending.composing import compose
from mergerisk.recommending.recipe import Part, Recipe
from mergerisk.recommending.space import Space
from mergerisk.study.fields.search import NO_DEFENSE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk.study import Study
    from mergerisk.study.fields.search import Search, Searched, Values


def space_of(study: Study, search: Search) -> Space:
    """The recipes that a study leaves to choose from.

    Args:
        study: that recipes are tried in; see :func:`~mergerisk.recommending.composing.to_search`.
        search: what it says of them.

    Raises:
        UserError: a method or a defense cannot be used here, or nothing is left.
    """
    if not study.merged_names:
        raise UserError("there is nothing to merge, so no recipe to recommend: give experts.files or ingredients")
    methods = _methods(study, search)
    if not methods:
        raise UserError(Fault("no method is left to choose from; name one", place("search", "merging")))
    bare, defenses = _defenses(study, search)
    if not bare and not (defenses and search.layers):
        raise UserError(
            Fault("nothing is left to choose from; name a defense, or none", place("search", "defenses"))
        )
    innermost = _innermost(study, methods, defenses) if search.layers else dict.fromkeys(methods, ())
    for name, values in defenses.items() if search.layers else ():
        able = next((method for method in methods if name in innermost[method]), next(iter(methods)))
        for part in _ends(name, values):
            _check(study, Recipe(_first(able, methods[able]), (part,)), "defenses", name)
    usable = {name: values for name, values in methods.items() if bare or innermost[name]}
    further = tuple(name for name in defenses if _stands_before(name))
    return Space(usable, defenses, {name: innermost[name] for name in usable}, further, bare, search.layers)


def starts(study: Study, space: Space) -> list[dict[str, Any]]:
    """What is tried first: the merges of the study that lie in the space, then every other method with its usual
    hyper-parameters; all of them as they are."""
    given = [
        Part.of(spec.name, spec.parameters)
        for spec in study.merging
        if spec.intervention is None and spec.name in space.methods
    ]
    named = {part.name for part in given}
    usual = [
        Part.of(name, asdict(METHODS.create(name, {})))
        for name in space.methods
        if name not in named | _stacked(space)
    ]
    found: list[dict[str, Any]] = []
    for part in (*given, *usual):
        said = space.answers(part)
        if said not in found:
            found.append(said)
    return found


def _stacked(space: Space) -> set[str]:
    """The methods with a correction on top."""
    return {name for name in space.methods if "+" in name}


def reading(space: Space) -> list[str]:
    """The methods and defenses to choose from that read calibration images: by which they are then chosen."""
    defenses = [
        name
        for name, values in space.defenses.items()
        if "images" in values and "calibration" in values["images"].ends
    ]
    return [*(name for name in space.methods if _reads(name)), *defenses]


def _methods(study: Study, search: Search) -> dict[str, Mapping[str, Values]]:
    """Those that are named, each seen to be possible; or all that read no image and take so many ingredients."""
    found: dict[str, Mapping[str, Values]] = {}
    for entry in search.merging or ():
        values = _ranges(entry, ranges.METHODS)
        for part in _ends(entry.name, values):
            _check(study, Recipe(part), "merging", entry.name)
        found[entry.name] = values
    for name in METHODS if search.merging is None else ():
        if not _reads(name) and _possible(study, Recipe(Part(name))):
            found[name] = ranges.METHODS.get(name, {})
    return found


def _defenses(study: Study, search: Search) -> tuple[bool, dict[str, Mapping[str, Values]]]:
    """Whether there may be none, and those that are named; or all that change pixels at once, without drawing."""
    named = search.defenses
    if named is None:
        if any(task not in study.with_expert for task in study.task_names):
            return True, {}  # who knows a defense attacks with the task's expert
        return True, {name: ranges.DEFENSES.get(name, {}) for name in DEFENSES if _cheap(name)}
    found: dict[str, Mapping[str, Values]] = {
        entry.name: _ranges(entry, ranges.DEFENSES) for entry in named if entry.name != NO_DEFENSE
    }
    return any(entry.name == NO_DEFENSE for entry in named), found


def _innermost(
    study: Study, methods: Mapping[str, Mapping[str, Values]], defenses: Mapping[str, Mapping[str, Values]]
) -> dict[str, tuple[str, ...]]:
    """Method → the defenses that can be put around its merge."""
    return {
        method: tuple(
            name
            for name, ranged in defenses.items()
            if _possible(study, Recipe(_first(method, values), (_first(name, ranged),)))
        )
        for method, values in methods.items()
    }


def _ranges(entry: Searched, usual: Mapping[str, Mapping[str, Values]]) -> dict[str, Values]:
    """The usual ones, but for what an entry says."""
    return {**usual.get(entry.name, {}), **entry.values}


def _ends(name: str, values: Mapping[str, Values]) -> Iterator[Part]:
    """A part with every value at an end, or each in turn: what is wrong in between is wrong there."""
    if not values:
        yield Part(name)
        return
    longest = max(len(one.ends) for one in values.values())
    for turn in range(longest):
        yield Part.of(name, {key: one.ends[min(turn, len(one.ends) - 1)] for key, one in values.items()})


def _first(name: str, values: Mapping[str, Values]) -> Part:
    return next(_ends(name, values))


def _check(study: Study, recipe: Recipe, field: str, name: str) -> None:
    """See that a recipe is possible.

    Raises:
        UserError: it is not; the message says of which entry of which field.
    """
    try:
        compose(study, [recipe])
    except UserError as error:
        where = place("search", field, item=name)
        raise UserError(*(Fault(fault.text, where) for fault in error.found)) from error


def _possible(study: Study, recipe: Recipe) -> bool:
    try:
        compose(study, [recipe])
    except UserError:
        return False
    return True


def _reads(name: str) -> bool:
    method, correction = split_name(name)
    return correction is not None or METHODS.load(method).needs_calibration


def _stands_before(name: str) -> bool:
    from mergerisk.defenses import Defense

    return issubclass(DEFENSES.load(name), Defense)


def _cheap(name: str) -> bool:
    """Whether a defense changes pixels before the model sees them, takes one pass, and draws nothing: who knows it
    crafts as fast as who does not."""
    from mergerisk.defenses.inputs import InputDefense

    kind = DEFENSES.load(name)
    if not issubclass(kind, InputDefense):
        return False
    made = DEFENSES.create(name, {})
    return bool(made.passes == 1 and made.adaptive_passes() == 1)
