"""One line that changes in place below a notebook's cell, instead of ever more lines."""

from __future__ import annotations

import time
from typing import Any

from markupsafe import Markup

EVERY = 0.5
"""Seconds between changes at least: each is sent to the browser."""


class NotebookLine:
    """A bar and a text, shown once, then changed."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._changed = 0.0

    def show(self, text: str, share: float | None = None, *, at_once: bool = False) -> None:
        """Change what is shown.

        Args:
            text: on one line.
            share: of the work that is done, in [0, 1]; None for a text alone.
            at_once: whatever was shown a moment ago.
        """
        from IPython.display import HTML, display

        now = time.monotonic()
        if self._handle is not None and now - self._changed < EVERY and not at_once:
            return
        self._changed = now
        bar = "" if share is None else Markup('<progress value="{:.3f}" max="1"></progress> ').format(share)
        shown = HTML(Markup("<div>{}{}</div>").format(bar, text))
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)
