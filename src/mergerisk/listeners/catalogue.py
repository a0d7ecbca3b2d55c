"""Listeners by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mergerisk.listeners.events import Listener

LISTENERS: Registry[Callable[[], Listener]] = Registry(
    "listener",
    "mergerisk.listeners",
    [
        Entry("mlflow", "mergerisk.listeners.in_mlflow:MlflowTracker", "a run of MLflow; needs mergerisk[mlflow]"),
        Entry(
            "wandb",
            "mergerisk.listeners.in_wandb:WandbTracker",
            "a run of Weights & Biases; needs mergerisk[wandb]",
        ),
    ],
)
"""What ``--listener`` can name: whatever is called without anything and gives a listener."""


def listeners_of(given: Iterable[str | Listener]) -> tuple[Listener, ...]:
    """Listeners, those that are named made.

    Raises:
        UserError: an unknown name, what it needs is not installed, or something that cannot be called.
    """
    found = []
    for one in given:
        made = LISTENERS.load(one)() if isinstance(one, str) else one
        if not callable(made):
            raise UserError(f"a listener is called with what happens; {one!r} cannot be called")
        found.append(made)
    return tuple(found)
