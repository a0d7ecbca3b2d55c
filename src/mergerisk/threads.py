"""Computing with one thread: sums are then split the same way whatever the number of cores, and results are the
same to the byte. Where matrices are narrow, or memory is the limit, it is the faster way too: threads that wait
for one another cost more time than they save, most of all on a machine that has other work."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from threadpoolctl import ThreadpoolController

T = TypeVar("T")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_thread() -> AbstractContextManager[None]:
    """A context in which PyTorch and numerical libraries use one thread; the caller's setting holds again
    afterwards."""
    from threadpoolctl import ThreadpoolController

    return _limited(ThreadpoolController())


def step_by_step(steps: Iterator[T], within: Callable[[], AbstractContextManager[object]]) -> Iterator[T]:
    """The same steps, each with one thread and ``within`` a context; between them the caller's settings hold."""
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController()
    end = object()
    while True:
        with within(), _limited(libraries):
            step = next(steps, end)
        if step is end:
            return
        yield cast("T", step)


@contextmanager
def _limited(libraries: ThreadpoolController) -> Iterator[None]:
    # Who has not imported PyTorch has nothing of it to limit, and need not wait for it.
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    with libraries.limit(limits=1):
        try:
            # The libraries that PyTorch was linked with statically, MKL for one, listen to nobody else.
            if torch:
                torch.set_num_threads(1)
            yield
        finally:
            if torch:
                torch.set_num_threads(threads)
