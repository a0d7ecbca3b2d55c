"""Errors that are meant for the person at the keyboard."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_READABLE = 40
"""Names in one message; a model has hundreds of tensors."""


class UserError(ValueError):
    """A mistake the user can mend: one line that says what is wrong, where, and what to do; or several that have
    nothing to do with each other, a line each.

    The command line prints them without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        return "\n".join(self.faults)

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        return tuple(map(str, self.args))


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
            raise UserError(*dict.fromkeys(fault for error in self._found for fault in error.faults))


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
def located(where: str) -> Iterator[None]:
    """Prefix user errors with the field, file or model that they are about."""
    try:
        yield
    except UserError as error:
        raise type(error)(*(f"{where}: {fault}" for fault in error.faults)) from error
