"""A row of the tables in this folder: something that people really do, and the value that is right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Situation:
    """One situation and its right value.

    Attributes:
        words: the situation, as its user would tell it; the test's name.
        measure: makes the situation in an empty folder and gives what mergerisk says of it.
        right: what it must say: a value to equal, or a pattern to be found in a text.
    """

    words: str
    measure: Callable[[Path], Any]
    right: Any

    def check(self, folder: Path) -> None:
        found = self.measure(folder)
        if isinstance(self.right, re.Pattern):
            assert self.right.search(found), found
        else:
            assert found == self.right

    def __str__(self) -> str:
        return self.words


def refusal(call: Callable[[], Any]) -> str:
    """The one line a call is refused with; what it returned instead, if it was not."""
    try:
        return f"accepted: {call()!r}"
    except UserError as error:
        return str(error)
