"""Names to implementations: lazy, open to third parties, with "did you mean".

A registry never imports an implementation before it is asked for, so listing names stays cheap.
Third parties add entries in two ways: an installed package declares an entry point in the registry's
group (``name = "package.module:attribute"``), or a script uses the :meth:`Registry.register` decorator.
"""

from __future__ import annotations

import importlib
import inspect
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from mergerisk.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """What can be said of an implementation without importing it."""

    name: str
    target: str
    """``package.module:attribute``, imported on first use."""
    summary: str
    paper: str = ""
    distribution: str = ""
    """Name and version of the installed package that adds it; empty for what is built in or registered."""
    revision: int = 1
    """Of what is built in: raised when it computes something else, were it in the last digits, so that older
    artefacts are no longer taken for its own. A stage's version says the same of all that the stage can run."""


class Registry(Generic[T]):
    """Implementations of one kind (``attack``, ``merging method``) by name.

    Args:
        kind: what an entry is, for messages.
        group: entry-point group in which installed packages add entries.
        builtin: the entries the package itself provides.
    """

    def __init__(self, kind: str, group: str, builtin: Iterable[Entry]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = {entry.name: entry for entry in builtin}
        self._registered: dict[str, tuple[Entry, T]] = {}

    def entries(self) -> list[Entry]:
        """Every entry: built in, installed, registered, in that order."""
        return list(self._all().values())

    def names(self) -> list[str]:
        return list(self._all())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self)})"

    def _all(self) -> dict[str, Entry]:
        registered = {name: entry for name, (entry, _) in self._registered.items()}
        return {
            **self._builtin,
            **{k: v for k, v in self._installed.items() if k not in self._builtin},
            **registered,
        }

    @cached_property
    def _installed(self) -> dict[str, Entry]:
        """What installed packages add; scanned once, since it takes milliseconds and does not change."""
        found = {}
        for point in metadata.entry_points(group=self.group):
            distribution = f"{point.dist.name} {point.dist.version}" if point.dist else ""
            summary = f"plugin from {point.dist.name}" if point.dist else "plugin"
            found[point.name] = Entry(point.name, point.value, summary, distribution=distribution)
        return found

    def register(self, name: str, *, summary: str = "", paper: str = "") -> Callable[[T], T]:
        """Decorator: make the decorated implementation available as ``name`` in this process.

        The same definition run again, as a notebook's cell is, replaces what it registered before. What an
        installed package adds under this name already, it may decorate as well.

        Raises:
            UserError: the name is another implementation's.
        """

        def add(implementation: T) -> T:
            known = self._all().get(name)
            if known is not None and known.distribution and known.target == _place(implementation):
                return implementation  # an installed package's own: its entry says the version too
            before = self._registered.get(name)
            if known is not None and (before is None or _place(before[1]) != _place(implementation)):
                raise UserError(f"{self.kind} {name!r} is registered already; choose another name")
            entry = Entry(name, f"{implementation!r}", summary or inspect.getdoc(implementation) or "", paper)
            self._registered[name] = (entry, implementation)
            return implementation

        return add

    def unregister(self, name: str) -> None:
        """Take back what :meth:`register` added."""
        del self._registered[name]

    def registered(self, name: str) -> bool:
        """Whether the entry was added by :meth:`register`: there is a class, but no path to one."""
        return name in self._registered

    def check(self, name: str) -> Entry:
        """The entry called ``name``.

        Raises:
            UserError: there is none; the message names the nearest.
        """
        known = self._all()
        if name not in known:
            raise UserError(f"unknown {self.kind} {name!r}{did_you_mean(name, known)}")
        return known[name]

    def load(self, name: str) -> T:
        """Import and return the implementation called ``name``.

        Raises:
            UserError: no such name, or the plugin that provides it cannot be imported.
        """
        entry = self.check(name)
        if name in self._registered:
            return self._registered[name][1]
        module, _, attribute = entry.target.partition(":")
        try:
            return cast("T", getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError) as error:
            if name in self._builtin:
                raise
            raise UserError(f"{self.kind} {name!r} cannot be loaded from {entry.target!r}: {error}") from error

    def name_of(self, implementation: T) -> str:
        """The name of an implementation that :meth:`load` returned."""
        for name in self.names():
            with suppress(UserError):  # a broken plugin, but not the one in question
                if self.load(name) is implementation:
                    return name
        raise KeyError(implementation)

    def create(self, name: str, parameters: Mapping[str, Any]) -> Any:
        """Make the implementation called ``name`` with these hyper-parameters, checked.

        Raises:
            UserError: unknown name, unknown hyper-parameter, or a value out of range.
        """
        from mergerisk.validation import construct

        return construct(cast("type[Any]", self.load(name)), parameters, f"{self.kind} {name!r}")


def plugins(*entries: Entry) -> tuple[str, ...]:
    """What tells entries from those that computed something else under the same name: name and version of the
    installed packages that add them, and the revision of what is built in, after the first."""
    revised = {f"{entry.name}, revision {entry.revision}" for entry in entries if entry.revision > 1}
    return tuple(sorted(revised | {entry.distribution for entry in entries} - {""}))


def _place(implementation: object) -> str:
    """Where an implementation is defined, as an entry point says it."""
    module, name = (getattr(implementation, part, implementation) for part in ("__module__", "__qualname__"))
    return f"{module}:{name}"
