"""Computing with one thread: where matrices are narrow, or memory is the limit, threads that wait for one another
cost more time than they save, most of all on a machine that has other work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def one_thread() -> AbstractContextManager[object]:
    """A context in which numerical libraries use one thread; the caller's setting holds again afterwards."""
    limited: AbstractContextManager[object] = ThreadpoolController().limit(limits=1)
    return limited
