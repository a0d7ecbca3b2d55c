"""A recipe: how to merge, and what to put around the merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Part:
    """A method or a defense with the hyper-parameters that were chosen; the others have their defaults.

    Attributes:
        name: of it.
        chosen: hyper-parameter and value, by name.
    """

    name: str
    chosen: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str, chosen: Mapping[str, Any]) -> Self:
        """One with its hyper-parameters in order."""
        return cls(name, tuple(sorted(chosen.items())))

    @property
    def parameters(self) -> dict[str, Any]:
        """Hyper-parameter → value."""
        return dict(self.chosen)

    def __str__(self) -> str:
        said = ", ".join(f"{name} {_shown(value)}" for name, value in self.chosen)
        return f"{self.name} ({said})" if said else self.name


@dataclass(frozen=True)
class Recipe:
    """How to merge, and what to put around the merge.

    Attributes:
        merge: the method.
        defenses: the innermost first.
    """

    merge: Part
    defenses: tuple[Part, ...] = ()

    def __str__(self) -> str:
        return " + ".join(map(str, (self.merge, *self.defenses)))

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "method": self.merge.name,
            "parameters": self.merge.parameters,
            "defenses": [{"defense": part.name, "parameters": part.parameters} for part in self.defenses],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """What :meth:`to_plain` gave."""
        defenses = tuple(Part.of(part["defense"], part["parameters"]) for part in plain["defenses"])
        return cls(Part.of(plain["method"], plain["parameters"]), defenses)


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
