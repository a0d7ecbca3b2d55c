"""How many images may be sent to a black box. Loads no PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from threading import Lock

from mergerisk.errors import UserError

LONGEST_TIMEOUT = 86400.0
"""Seconds that one exchange may take: a day."""


class QueryBudget(ABC):
    """How many images may be sent to a black box.

    Args:
        limit: images in all, those of repeated requests included.

    Raises:
        UserError: the limit is negative.
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise UserError(f"a query budget cannot be negative, got {limit}")
        self.limit = limit

    @property
    @abstractmethod
    def used(self) -> int:
        """Images reserved so far."""

    @abstractmethod
    def spend(self, count: int) -> None:
        """Reserve ``count`` images. Called before they are sent; there is no giving back.

        Raises:
            UserError: that would exceed the limit; nothing is reserved then.
        """

    def check(self, count: int) -> int:
        """What will be used after ``count`` more images; reserves nothing.

        Raises:
            UserError: more than the limit.
        """
        if count < 0:
            raise ValueError(f"cannot spend {count} queries")
        used = self.used
        if used + count > self.limit:
            raise UserError(
                f"query budget of {self.limit} is spent: {used} used, {count} asked for; raise `queries`, "
                "or attack fewer images"
            )
        return used + count


class Queries(QueryBudget):
    """A budget kept in memory, for one process; its threads may share it."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._used = 0
        self._lock = Lock()

    @property
    def used(self) -> int:
        return self._used

    def spend(self, count: int) -> None:
        with self._lock:
            self._used = self.check(count)
