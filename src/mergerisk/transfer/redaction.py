"""What was sent in confidence is in no message, though a service may repeat it in its answer."""

from __future__ import annotations

import html
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

_HIDDEN = "***"
_SHORTEST_PART = 6
"""Characters of a secret that are taken for a part of it; of a shorter one, all."""

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")

_LONGEST = 2**13
"""Characters of a text that are looked at; no message shows more."""

_CONFIDENTIAL = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY")
"""In the names of environment variables that hold secrets: ``HF_TOKEN``, ``WANDB_API_KEY``."""
_SHORTEST = 8
"""Characters of such a variable's value that is taken for a secret; a shorter one may be any word of a message."""

_OF_PLACES = re.compile(r"(PATH|FILE|DIR|HOME)$")
"""How names end that say where a secret lies, as ``HF_TOKEN_PATH`` does."""

_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")

_WITHHELD = "(not shown: it repeats what was sent in confidence)"


class Secrets:
    """Texts that must not be shown.

    Args:
        values: the texts, such as the values of a request's headers; the last word of each is one of its own, as
            in ``Bearer …``.
    """

    def __init__(self, values: Iterable[str]) -> None:
        whole = [value for value in values if value.strip()]
        words = [value.split()[-1] for value in whole]
        # The longest first, so that none is cut in two by one that it contains.
        self._values = sorted({*whole, *words}, key=lambda value: (-len(value), value))
        plain = [_plain(value) for value in words]
        self._parts = {
            value[start : start + _SHORTEST_PART]
            for value in plain
            for start in range(max(1, len(value) - _SHORTEST_PART + 1))
        }

    def hidden(self, text: str) -> str:
        """The text without them, of a long one its beginning: stars where one stands as it is; where a part of one
        is left, cut off or written as JSON, HTML or a URL writes it, nothing of the text."""
        text = text[:_LONGEST]
        for value in self._values:
            text = text.replace(value, _HIDDEN)
        readings = {
            _plain(text),
            _plain(unquote_plus(text)),
            _plain(html.unescape(text)),
            _plain(_unescaped(text)),
        }
        return _WITHHELD if any(part in reading for part in self._parts for reading in readings) else text


def secrets_of_environment(variables: Iterable[str] = ()) -> Secrets:
    """What the environment holds in confidence: the values of these variables, and of those whose names say so."""
    named = {os.environ.get(name, "") for name in variables}
    telling = {
        value
        for name, value in os.environ.items()
        if _CONFIDENTIAL.search(name.upper()) and len(value) >= _SHORTEST and not _is_place(name, value)
    }
    return Secrets(named | telling)


def _is_place(name: str, value: str) -> bool:
    """Whether a variable says where a secret lies, not what it is: one in Base64 may begin with a slash too."""
    return _OF_PLACES.search(name.upper()) is not None or "://" in value or os.path.exists(value)  # noqa: PTH110


def without_logins(text: str) -> str:
    """Text whose addresses tell no user name and no password: ``https://***@host``."""
    return _LOGIN.sub(f"{_HIDDEN}@", text)


def _plain(text: str) -> str:
    """Without spaces and backslashes, in small letters."""
    return "".join(text.replace("\\", "").split()).casefold()


def _unescaped(text: str) -> str:
    r"""With JSON's ``\u0041`` read."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
