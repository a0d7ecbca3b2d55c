"""A listener that mergerisk does not know of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergerisk.listeners import Event


class Diary:
    """Writes what happens into the file that the environment variable ``DIARY`` names, an event a line."""

    name = "diary"

    def __init__(self) -> None:
        self._file = Path(os.environ["DIARY"])

    def __call__(self, event: Event) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{type(event).__name__}\n")
