"""Errors that are meant for the person at the keyboard."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_READABLE = 40
"""Names in one message; a model has hundreds of tensors."""


@dataclass(frozen=True)
class Place:
    """Where in what a user wrote something is: ``merging[2].scaling``, or ``targets: release``.

    Attributes:
        path: names of fields, and positions in lists, outermost first.
        item: which of several things there, by what it is called; empty where the path says it all.
    """

    path: tuple[str | int, ...]
    item: str = ""

    def __str__(self) -> str:
        found = ""
        for part in self.path:
            found += f"[{part}]" if isinstance(part, int) else f".{part}" if found else part
        return f"{found}: {self.item}" if self.item else found


def place(*path: str | int, item: str = "") -> Place:
    """A place, its path part by part."""
    return Place(path, item)


@dataclass(frozen=True)
class Fault:
    """One line of a user error.

    Attributes:
        text: what is wrong, and what to do.
        place: the field that it is about, where it is known apart from the text.
    """

    text: str
    place: Place | None = None

    def __str__(self) -> str:
        return self.text if self.place is None else f"{self.place}: {self.text}"


class UserError(ValueError):
    """A mistake the user can mend: one line that says what is wrong, where, and what to do; or several that have
    nothing to do with each other, a line each. A line is a text, or a :class:`Fault`.

    The command line prints them without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        return "\n".join(self.faults)

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        return tuple(map(str, self.args))

    @property
    def found(self) -> tuple[Fault, ...]:
        """What is wrong, and where as far as that is known apart from the text."""
        return tuple(part if isinstance(part, Fault) else Fault(str(part)) for part in self.args)


class Faults:
    """Collects the user errors of checks that do not depend on each other, so that all are said at once."""

    def __init__(self) -> None:
        self._found: list[UserError] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep a user error, and go on behind the block."""
        try:
            yield
        except UserError as error:
            self._found.append(error)

    def settle(self) -> None:
        """Raise what was found, if anything was: each fault once, in the order they were met.

        Raises:
            UserError: something was; a single error as it is.
        """
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            each: dict[str, Fault] = {}
            for fault in (fault for error in self._found for fault in error.found):
                each.setdefault(str(fault), fault)
            raise UserError(*each.values())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'ties'?)`` for a near miss, else the list of what is known, if one can read it."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known: {', '.join(names)})" if len(names) <= _READABLE else ""


_LONGEST = 200
"""Characters of somebody else's text in a message."""


def described(error: Exception) -> str:
    """Somebody else's error on one line: its class, and the start of what it says."""
    return shown_text(f"{type(error).__name__}: {error}".removesuffix(": "))


def first_line(error: Exception) -> str:
    """What an error says, on one line; its class if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shown_text(text: str, longest: int = _LONGEST) -> str:
    """The start of a text, on one line."""
    line = " ".join(text[: 4 * longest].split())
    return (line if len(line) <= longest else f"{line[:longest]}…") or "(nothing)"


@contextmanager
def located(where: str | Place) -> Iterator[None]:
    """Prefix user errors with the field, file or model that they are about.

    Args:
        where: a text, or a place, which errors then carry as such.
    """
    try:
        yield
    except UserError as error:
        about = where if isinstance(where, Place) else None
        begin = "" if about else f"{where}: "
        raise type(error)(*(Fault(f"{begin}{fault}", about) for fault in error.faults)) from error
