"""Every model and data set that a study names, found by one walk over its annotated fields."""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from mergerisk.errors import Place
from mergerisk.study.fields.basics import Model
from mergerisk.study.fields.models import TaskSpec
from mergerisk.study.fields.names import Kind, Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class NamedSource:
    """A model or data set, where a study names it.

    Attributes:
        where: the field; of one in a list, the list and what it is called.
        kind: what is named.
        value: its name, path or hub id; of data the task with its options.
    """

    where: Place
    kind: Kind
    value: str | TaskSpec

    @property
    def model(self) -> str:
        """The name of a model."""
        assert isinstance(self.value, str)
        return self.value

    @property
    def data(self) -> TaskSpec:
        """The task."""
        assert isinstance(self.value, TaskSpec)
        return self.value


def named_sources(study: Model) -> tuple[NamedSource, ...]:
    """All of them, in the order of the fields."""
    found: list[NamedSource] = []

    def keep(one: NamedSource) -> str | TaskSpec:
        found.append(one)
        return one.value

    renamed(study, keep)
    return tuple(found)


def renamed(study: M, change: Callable[[NamedSource], str | TaskSpec]) -> M:
    """The study with other names for them; nothing is checked anew."""
    changed: M = _walk(type(study), (), study, Place(()), change)
    return changed


def _walk(
    hint: Any, marks: Iterable[object], value: Any, where: Place, change: Callable[[NamedSource], str | TaskSpec]
) -> Any:
    """A value of a field with what it names changed; the value itself where nothing is.

    Args:
        hint: the field's type.
        marks: what it is annotated with.
        value: of the field.
        where: it is.
        change: of what is named.
    """
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return _walk(inner[0], inner[1:], value, where, change)
    if value is None:
        return None
    mark = next((mark for mark in marks if isinstance(mark, Names)), None)
    if mark is not None:
        return change(NamedSource(where, mark.kind, value))
    if kind in (Union, UnionType):
        possible = [one for one in inner if one is not NoneType]
        return _walk(possible[0], (), value, where, change) if len(possible) == 1 else value
    if isinstance(value, Model):
        before = {name: getattr(value, name) for name in type(value).model_fields}
        after = {
            name: _walk(field.annotation, field.metadata, before[name], _inside(where, name), change)
            for name, field in type(value).model_fields.items()
        }
        return value.model_copy(update=after) if _differ(before, after) else value
    if kind is dict:
        after = {key: _walk(inner[1], (), one, _inside(where, key), change) for key, one in value.items()}
        return after if _differ(value, after) else value
    if kind is tuple:
        items = tuple(
            _walk(inner[0], (), one, Place(where.path, getattr(one, "label", "")), change) for one in value
        )
        return items if any(one is not other for one, other in zip(items, value, strict=True)) else value
    return value


def _inside(where: Place, name: str) -> Place:
    """A field, or a key; of an item that has a name, the item itself."""
    return where if where.item else Place((*where.path, name))


def _differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return any(after[name] is not value for name, value in before.items())
