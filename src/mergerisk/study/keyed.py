"""What results depend on, read off the fields of frozen dataclasses: recipes and edges are written down once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from mergerisk.store.keys import Json

T_co = TypeVar("T_co", covariant=True)

_UNKEYED = "unkeyed"


@dataclass(frozen=True)
class Input(Generic[T_co]):
    """An edge of the graph: the result of another stage, which reads as a ``T``.

    Attributes:
        key: of the stage that makes it.
    """

    key: str


def unkeyed(**options: Any) -> Any:
    """A field that no result depends on: a label, where a file lies, how much work it is."""
    return field(metadata={_UNKEYED: True}, **options)


@dataclass(frozen=True)
class Described:
    """What a keyed object says of itself.

    Attributes:
        parameters: its fields as JSON; a role stands where an edge is.
        inputs: role → key, as ``ingredients/mnist`` or ``target/head``.
    """

    parameters: dict[str, Json]
    inputs: dict[str, str]


class Keyed:
    """A frozen dataclass whose fields tell what a result depends on.

    Fields are JSON, :class:`Input`, other keyed objects, and tuples and mappings of such. A mapping of inputs is
    keyed with its order: ingredients have places.
    """

    kind: ClassVar[str]
    """Tells it from others with the same fields."""

    @cached_property
    def described(self) -> Described:
        """Said once, however many stages share it."""
        return describe(self)


def describe(item: Keyed) -> Described:
    """The fields that are keyed, taken apart into parameters and edges."""
    inputs: dict[str, str] = {}
    names = _keyed_fields(type(item))  # type: ignore[arg-type]  # mypy takes a class for its instances
    parameters = {name: _plain(getattr(item, name), name, inputs) for name in names}
    return Described(parameters, inputs)


@lru_cache(maxsize=256)
def _keyed_fields(kind: type[Any]) -> tuple[str, ...]:
    """The names of a kind's fields that its results depend on."""
    return tuple(item.name for item in fields(kind) if _UNKEYED not in item.metadata)


def _plain(value: Any, role: str, inputs: dict[str, str]) -> Json:
    """A field's value as JSON, with a role in place of every edge; the edges' keys are added to ``inputs`` by
    role."""
    if isinstance(value, Input):
        inputs[role] = value.key
        return role
    if isinstance(value, Keyed):
        found = value.described
        inputs.update((f"{role}/{name}", key) for name, key in found.inputs.items())
        return {"kind": value.kind, **found.parameters}
    if isinstance(value, Mapping):
        if any(isinstance(item, Input) for item in value.values()):
            return [_plain(item, f"{role}/{name}", inputs) for name, item in value.items()]
        return {name: _plain(item, f"{role}/{name}", inputs) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, f"{role}/{position:03d}", inputs) for position, item in enumerate(value)]
    return value  # type: ignore[no-any-return]
