"""The search: rounds of recipes, each drawn by what earlier rounds showed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mergerisk.recommending.recipe import Recipe
    from mergerisk.recommending.scoring import Score, Tried

ROUND = 8
"""Recipes that are tried at once: workers share them, and a sampler waits for all."""


class OutOfTime(Exception):  # noqa: N818  # not an error
    """The search has no time left: raised by whatever notices, and ends its round."""


class Log(Protocol):
    """What was tried, and what to try next; see :class:`mergerisk.recommending.trials.Trials`."""

    @property
    def count(self) -> int:
        """Of trials that were begun."""

    def finished(self) -> list[Tried]:
        """Those with a score, in order."""

    def begun(self) -> list[tuple[int, Recipe]]:
        """Those that were begun and not finished."""

    def begin(self) -> tuple[int, Recipe]:
        """Draw the next recipe."""

    def finish(self, number: int, score: Score | None) -> None:
        """Keep where a recipe stands; None gives it up."""


def search(
    log: Log,
    tried: Callable[[Sequence[Recipe]], Sequence[Score | None]],
    *,
    most: int | None = None,
    settled: Callable[[list[Tried]], bool] = lambda _: False,
) -> list[Tried]:
    """Try recipes, a round at a time, until there is no time left or enough were tried.

    Args:
        log: of the search; one that was stopped goes on where it was.
        tried: tries recipes; raises :class:`OutOfTime` where there is none left.
        most: trials, at most, those of earlier calls included; None for any number.
        settled: asked before every round whether to stop.

    Returns:
        Every recipe that was tried, in order.
    """
    while not settled(log.finished()):
        waiting = log.begun()
        # A round that was stopped while it was drawn is drawn to its end.
        while (not waiting or log.count % ROUND) and (most is None or log.count < most):
            waiting.append(log.begin())
        if not waiting:
            break
        try:
            found = tried([recipe for _, recipe in waiting])
        except OutOfTime:
            break
        for (number, _), score in zip(waiting, found, strict=True):
            log.finish(number, score)
    return log.finished()
