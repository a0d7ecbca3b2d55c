"""What classes are called: one form per name, one order of names, and one way from a name to its row.

A folder of images, a table of labels, a data set and a classifier may each name the same classes a little
differently. Every command asks here what is the same.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, did_you_mean
from mergerisk.plain_data import unfit_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHOWN = 3
"""Rows named in one message."""


def one_form(name: str) -> str:
    """A name in Unicode's composed form (NFC): what is written alike is one name, from whatever file system."""
    return unicodedata.normalize("NFC", name)


def check_names(names: Iterable[str], where: str) -> None:
    """See that names can be written: into messages, tables and pages.

    Raises:
        UserError: one holds what cannot be printed, or half of a character; ``where`` begins the message.
    """
    for label, name in enumerate(names):
        fault = unfit_text(name)
        if fault:
            raise UserError(f"{where}: the name of class {label} {fault}; rename it")


def in_words(name: str) -> str:
    """A name as a sentence would have it: spaces where a folder's name has underscores."""
    return " ".join(one_form(name).replace("_", " ").split()) or name


def same_in_words(names: Sequence[str]) -> tuple[int, int] | None:
    """The first two classes that a sentence calls the same; None if there are none."""
    first: dict[str, int] = {}
    for row, name in enumerate(map(in_words, names)):
        if name in first:
            return first[name], row
        first[name] = row
    return None


def _plain(name: str) -> str:
    """What names of one class have in common: letters of either case, an underscore for a space."""
    return one_form(in_words(name).casefold())


def is_number(name: str) -> bool:
    """Whether a name is written in digits only."""
    return name.isascii() and name.isdigit()


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Different names in the order of their labels: as numbers, if all are numbers; else as text."""
    known = set(map(one_form, names))
    if all(map(is_number, known)):
        return tuple(sorted(known, key=lambda name: (int(name), name)))
    return tuple(sorted(known))


def same_names(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two lists name the same classes in the same order."""
    return list(map(_plain, ours)) == list(map(_plain, theirs))


class Classes:
    """Classes in the order of their labels, or of a classifier's rows, by what people call them.

    Args:
        names: one per class; None for a classifier that names none.
        count: number of classes.
        owner: whose they are, for messages.

    Attributes:
        names: one per class, in one form; None if there are none.
        count: number of classes.
    """

    def __init__(self, names: Sequence[str] | None, count: int, owner: str = "the model") -> None:
        self.names = None if names is None else list(map(one_form, names))
        self.count = count
        self._owner = owner
        exact, alike, aliases = (defaultdict[str, list[int]](list) for _ in range(3))
        for row, name in enumerate(self.names or ()):
            exact[name].append(row)
            alike[_plain(name)].append(row)
            # ImageNet's have several: "tench, Tinca tinca".
            for alias in set(map(_plain, name.split(","))) if "," in name else ():
                aliases[alias].append(row)
        self._known = exact, alike, aliases
        # Names that are all numbers may count otherwise than the rows do.
        self._by_row = not exact or not all(map(is_number, exact))

    def find(self, text: str) -> list[int]:
        """The rows that ``text`` may mean; none if it is unknown.

        The first of these that fits counts: the name itself, the name in letters of either case and with
        underscores for spaces, one of a name's aliases between commas, the number of the row.
        """
        text = one_form(text.strip())
        exact, alike, aliases = self._known
        for found in (exact.get(text), alike.get(_plain(text)), aliases.get(_plain(text))):
            if found:
                return found
        return [int(text)] if self._by_row and is_number(text) and int(text) < self.count else []

    def index(self, text: str, where: str) -> int:
        """The one row that ``text`` means; see :meth:`find`.

        Args:
            text: what a person calls the class.
            where: what to begin an error with.

        Raises:
            UserError: there is none, or there are several.
        """
        found = self.find(text)
        if len(found) == 1:
            return found[0]
        if found:
            which = " and ".join(map(str, found[:_SHOWN])) + (", …" if found[_SHOWN:] else "")
            raise UserError(
                f"{where}: {self._owner} has {len(found)} classes called {text.strip()!r}, {which}; write the "
                "number of the one that is meant"
            )
        raise UserError(f"{where}: {self._unknown(text.strip())}")

    def _unknown(self, text: str) -> str:
        last = self.count - 1
        if self._by_row and is_number(text):
            hint = "; if yours count from 1, write one less each" if int(text) == self.count else ""
            return f"class {text} is out of range; {self._owner} has classes 0 to {last}{hint}"
        if not self.names:
            return f"no class {text!r}; {self._owner} names none, so write numbers, 0 to {last}"
        return f"{self._owner} has no class {text!r}{did_you_mean(text, self.names)}"

    def rows(self, wanted: Sequence[str]) -> list[list[int]]:
        """Of every class of a whole list, the rows that it may be; one each where the two lists fit.

        By position, where both lists are the same (which tells even two classes of one name apart), or where
        there are no names and as many classes; else each by :meth:`find`.
        """
        if len(wanted) == self.count and (self.names is None or same_names(wanted, self.names)):
            return [[row] for row in range(self.count)]
        return [self.find(name) for name in wanted]
