"""Which merges are safe on the same terms? Finished runs, checked → ranks with intervals, as a page."""

import sys
from types import ModuleType
from typing import Any

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)


class _Callable(ModuleType):
    """The room, which is called as its one verb, as ``mergerisk.audit`` is."""

    def __call__(self, *given: Any, **options: Any) -> Any:
        from mergerisk.leaderboard.running import leaderboard

        return leaderboard(*given, **options)


sys.modules[__name__].__class__ = _Callable
