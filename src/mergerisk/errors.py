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
    """A mistake the user can mend: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


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
        raise type(error)(f"{where}: {error}") from error
