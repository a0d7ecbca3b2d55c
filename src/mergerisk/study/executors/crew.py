"""Who makes the artefacts of stages: what every executor says, for one loop to run a plan with any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    from mergerisk.store import Store
    from mergerisk.study.executors.attempt import Outcome
    from mergerisk.study.stage import Stage

    Hire = Callable[[Store, int], AbstractContextManager["Crew"]]
    """A store and how many stages are left → whoever makes them, for as long as the context lasts."""


class Crew(ABC):
    """Attempts stages, some at a time. Only keys and parameters go to it and come back from it, never tensors."""

    def line(self, stage: Stage) -> str:  # noqa: ARG002  # most treat all alike
        """Which line a stage stands in: those of one line ask for the same."""
        return ""

    @abstractmethod
    def lines(self) -> Collection[str]:
        """Those of which one more stage can be started now."""

    def near(self) -> Collection[str]:
        """Keys of large models that whoever is free now has read: of stages of one rank, those that are given one
        of them come first, so that it is not read again for every stage; see
        :func:`~mergerisk.study.executors.needs.large_model`."""
        return ()

    @abstractmethod
    def start(self, stage: Stage, wait: bool) -> None:
        """Have a stage of such a line attempted; see :func:`~mergerisk.study.executors.attempt.attempt`."""

    @abstractmethod
    def ended(self) -> tuple[Stage, Outcome]:
        """The stage whose attempt ends first, and how it ended; waits for it.

        Raises:
            UserError: what attempts it is gone, and nothing else can.
        """
