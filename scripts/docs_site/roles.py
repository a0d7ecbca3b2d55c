"""Docstrings' references in the site's Markdown: a public name becomes a link to it, any other a bit of code."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))

from api_pages import ROOMS, SOURCE, names_of_room, public_names

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROLE = re.compile(r":\w+:`~?([^`]*)`")


def public_places() -> Mapping[str, str]:
    """Public name → where the site has it; of several places the shortest."""
    places: dict[str, str] = {}
    for room in ROOMS:
        for name in names_of_room(room):
            places.setdefault(name, f"mergerisk.{room}.{name}")
    return places | {name: f"mergerisk.{name}" for name in public_names(SOURCE / "__init__.pyi")}


_log = logging.getLogger("mkdocs.plugins.mergerisk")  # below mkdocs, so that a warning fails a strict build


class Roles(griffe.Extension):
    """Rewrites every docstring as it is read."""

    def __init__(self) -> None:
        super().__init__()
        self._places = public_places()

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called of every object once it is known."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(self._linked, obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called once, of the whole: every public name must say what it is."""
        for place in {*public_places().values()}:
            found = pkg[place.removeprefix("mergerisk.")]
            if found.docstring is None:
                _log.warning("%s is public and has no docstring", place)

    def _linked(self, match: re.Match[str]) -> str:
        owner, _, last = match[1].rpartition(".")
        dotted = owner.rpartition(".")[2]
        if last in self._places and (not owner or owner.startswith("mergerisk")):
            return f"[`{last}`][{self._places[last]}]"
        return f"`{dotted}.{last}`" if dotted and dotted[0].isupper() else f"`{last}`"
