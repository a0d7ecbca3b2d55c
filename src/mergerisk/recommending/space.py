"""What recipes there are to choose from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mergerisk.recommending.recipe import Part, Recipe
from mergerisk.study.fields.search import NO_DEFENSE, Between

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.study.fields.search import Values


class Chooser(Protocol):
    """What chooses; Optuna's trials are such."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of several."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole one."""


@dataclass(frozen=True)
class Space:
    """What recipes there are to choose from.

    Attributes:
        methods: method → hyper-parameter → its values.
        defenses: defense → hyper-parameter → its values.
        innermost: method → defenses that can be put around its merge, or train it.
        further: those that can be put around what is defended already: they change no weights.
        bare: whether a merge may be left as it is.
        layers: defenses upon one another, at most.
    """

    methods: Mapping[str, Mapping[str, Values]]
    defenses: Mapping[str, Mapping[str, Values]]
    innermost: Mapping[str, tuple[str, ...]]
    further: tuple[str, ...]
    bare: bool
    layers: int

    def draw(self, chooser: Chooser) -> Recipe:
        """A recipe, question by question: the method, its hyper-parameters, the innermost defense and so on."""
        method = chooser.suggest_categorical("method", [*self.methods])
        merge = Part.of(method, _drawn(chooser, method, self.methods[method]))
        found: list[Part] = []
        for layer in range(self.layers):
            options = self._options(method, found)
            name = (
                options[0] if len(options) == 1 else chooser.suggest_categorical(_asked(layer, options), options)
            )
            if name == NO_DEFENSE:
                break
            found.append(Part.of(name, _drawn(chooser, name, self.defenses[name])))
        return Recipe(merge, tuple(found))

    def answers(self, merge: Part) -> dict[str, Any]:
        """What a chooser says who chooses a merge as it is, as far as that can be said within the space.

        Args:
            merge: one of the methods; hyper-parameters with values beyond theirs are left open.
        """
        said: dict[str, Any] = {"method": merge.name}
        for name, values in self.methods[merge.name].items():
            value = merge.parameters.get(name)
            if isinstance(values, Between):
                if isinstance(value, int | float) and values.low <= value <= values.high:
                    said[_of(merge.name, name)] = value
            elif value in values.values and len(values.values) > 1:
                said[_of(merge.name, name)] = values.values.index(value)
        options = self._options(merge.name, []) if self.layers else ()
        if len(options) > 1 and NO_DEFENSE in options:
            said[_asked(0, options)] = NO_DEFENSE
        return said

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        plain = dataclasses.asdict(self)
        for field in ("methods", "defenses"):
            parts: Mapping[str, Mapping[str, Values]] = getattr(self, field)
            plain[field] = {
                name: {key: values.model_dump(mode="json") for key, values in ranges.items()}
                for name, ranges in parts.items()
            }
        return plain

    def _options(self, method: str, found: Sequence[Part]) -> tuple[str, ...]:
        """The next layer's: none that is there already."""
        if not found:
            return ((NO_DEFENSE,) if self.bare or not self.innermost[method] else ()) + self.innermost[method]
        there = {part.name for part in found}
        return (NO_DEFENSE, *(name for name in self.further if name not in there))


def _asked(layer: int, options: Sequence[str]) -> str:
    """What a question for a defense is called: one name belongs to one list of answers."""
    return f"defense {layer + 1}: {', '.join(options)}"


def _of(part: str, name: str) -> str:
    return f"{part}: {name}"


def _drawn(chooser: Chooser, part: str, ranges: Mapping[str, Values]) -> dict[str, Any]:
    return {name: _value(chooser, _of(part, name), values) for name, values in ranges.items()}


def _value(chooser: Chooser, name: str, values: Values) -> Any:
    """A hyper-parameter's; numbers to three digits, which is finer than anything that can be told apart."""
    if not isinstance(values, Between):
        options = values.values
        return options[0] if len(options) == 1 else options[chooser.suggest_categorical(name, range(len(options)))]
    if values.whole:
        return chooser.suggest_int(name, int(values.low), int(values.high), log=values.log)
    drawn = chooser.suggest_float(name, values.low, values.high, log=values.log)
    return min(max(float(f"{drawn:.3g}"), values.low), values.high)
