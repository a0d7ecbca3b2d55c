"""Is a merged model safe to release? Labelled images + what an attacker could get → verdict, gates."""

import sys
from types import ModuleType
from typing import Any

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)


class _Callable(ModuleType):
    """The room, which is called as its one verb: ``mergerisk.audit(…)`` is ``mergerisk.audit.audit(…)``.

    A function of the room's name in the package would be one or the other, by what was imported first.
    """

    def __call__(self, *given: Any, **options: Any) -> Any:
        from mergerisk.audit.running import audit

        return audit(*given, **options)


sys.modules[__name__].__class__ = _Callable
