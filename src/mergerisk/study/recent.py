"""What was made last, as far as it fits."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")


class Recent(Generic[T]):
    """Things by key, the last used ones: as many as fit, and the very last whatever its size.

    Args:
        limit: bytes of all that is kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[int, T]] = OrderedDict()

    def get(self, key: Hashable, size: int | Callable[[T], int], make: Callable[[], T]) -> T:
        """What is kept under ``key``, or what ``make`` gives.

        Args:
            key: of it.
            size: the bytes it takes; where they are known only once it is made, a function of it.
            make: makes it.
        """
        if key not in self._kept:
            if isinstance(size, int):
                self.make_room(size)  # before it is made: two large ones are never held at once
                self._kept[key] = (size, make())
            else:
                made = make()
                self.make_room(size(made))
                self._kept[key] = (size(made), made)
        self._kept.move_to_end(key)
        return self._kept[key][1]

    def make_room(self, size: int = 0) -> None:
        """Forget the oldest until what is kept fits together with ``size`` bytes more."""
        while self._kept and size + sum(own for own, _ in self._kept.values()) > self._limit:
            self._kept.popitem(last=False)
