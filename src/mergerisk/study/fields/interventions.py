"""What is changed about a merge to see what moves with it, as a study file says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mergerisk.merging.catalogue import INTERVENTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal["path", "placebo", "ingredients", "shuffled_blocks"]
"""One of :data:`mergerisk.merging.catalogue.INTERVENTIONS`."""

ALL_BUT_ATTACKED = "all_but_attacked"


@dataclass(frozen=True)
class Intervention:
    """One change of a merge; see :mod:`mergerisk.merging.interventions`.

    Attributes:
        kind: ``path``: on the way from the base to the merge; ``placebo``: random task vectors of the same length;
            ``ingredients``: without the attacked task's own; ``shuffled_blocks``: one block's task vectors in
            disorder.
        value: how far on the path, in [0, 1], or which block, from 0; ``true`` or ``all_but_attacked`` of others.

    Raises:
        ValueError: a value that the kind does not have.
    """

    kind: Kind
    value: Any

    def __post_init__(self) -> None:
        value = self.value
        whole = isinstance(value, int) and not isinstance(value, bool)
        match self.kind:
            case "path":
                fault = "must be in [0, 1], from the base to the merge, or a list of such numbers"
                sound = (whole or isinstance(value, float)) and 0 <= value <= 1
            case "placebo":
                fault, sound = "must be true; leave it out otherwise", value is True
            case "ingredients":
                fault, sound = f"must be {ALL_BUT_ATTACKED}; leave it out otherwise", value == ALL_BUT_ATTACKED
            case "shuffled_blocks":
                fault = "must be the number of a block, from 0, or a list of such numbers"
                sound = whole and value >= 0
        if not sound:
            raise ValueError(f"{self.kind} {fault}, got {value!r}")

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Intervention | None:
        """That of an entry of ``merging``, if it is one.

        Raises:
            ValueError: it names two, or one that cannot be.
        """
        given = [*INTERVENTIONS.keys() & entry.keys()]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(sorted(given))}: one thing is changed at a time; make two entries of them"
            )
        return cls(given[0], entry[given[0]]) if given else None  # type: ignore[arg-type]

    @staticmethod
    def written() -> dict[str, dict[str, Any]]:
        """What an entry of ``merging`` may say of them, as JSON Schema."""
        share, block = {"type": "number", "minimum": 0, "maximum": 1}, {"type": "integer", "minimum": 0}
        forms: dict[str, dict[str, Any]] = {
            "path": {"anyOf": [share, {"type": "array", "items": share, "minItems": 1}]},
            "placebo": {"const": True},
            "ingredients": {"const": ALL_BUT_ATTACKED},
            "shuffled_blocks": {"anyOf": [block, {"type": "array", "items": block, "minItems": 1}]},
        }
        return {kind: form | {"description": INTERVENTIONS[kind]} for kind, form in forms.items()}

    @property
    def called(self) -> str:
        """What follows the merge's label and ``@``."""
        match self.kind:
            case "path":
                return f"{self.value:g}"
            case "shuffled_blocks":
                return f"block{self.value}"
            case "ingredients":
                return ALL_BUT_ATTACKED
        return self.kind

    def as_written(self) -> dict[str, object]:
        """As a study file says it."""
        return {self.kind: self.value}


def each_of(entry: object) -> Iterator[object]:
    """The merges that an entry of ``merging`` stands for: places on the path, and blocks, may be lists, and are a
    merge each, called ``LABEL@VALUE``.

    Raises:
        ValueError: a list is empty or names something twice, or two things are changed at once.
    """
    found = {
        kind: entry[kind]
        for kind in ("path", "shuffled_blocks")
        if isinstance(entry, dict) and isinstance(entry.get(kind), list)
    }
    if not isinstance(entry, dict) or not found:
        yield entry
        return
    for kind, values in found.items():
        if not values:
            raise ValueError(f"{kind}: give one value at least")
        for place, value in enumerate(values):
            if value in values[:place]:
                raise ValueError(f"{kind}: {value} is given twice")
            one = entry | {kind: value}
            made = Intervention.of(one)
            assert made is not None
            yield one | {"label": f"{entry.get('label', entry.get('method'))}@{made.called}"}
