"""Errors that are meant for the person at the keyboard."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


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
