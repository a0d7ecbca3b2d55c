"""One thread for PyTorch and for the libraries beside it, for as long as asked."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from mergerisk.threads import one_thread, step_by_step

if TYPE_CHECKING:
    from collections.abc import Iterator


def counts() -> set[int]:
    """Threads of PyTorch, and of every library that threadpoolctl finds."""
    np.ones((2, 2)) @ np.ones((2, 2))
    return {torch.get_num_threads(), *(library["num_threads"] for library in threadpool_info())}


@pytest.fixture
def _two_threads() -> Iterator[None]:
    with threadpool_limits(2):
        torch.set_num_threads(2)
        yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_two_threads")
def test_one_thread_lasts_as_long_as_its_context() -> None:
    assert counts() == {2}
    with one_thread():
        assert counts() == {1}
        with one_thread():
            assert counts() == {1}
        assert counts() == {1}
    assert counts() == {2}
    with pytest.raises(ZeroDivisionError), one_thread():
        _ = 1 / 0
    assert counts() == {2}


@pytest.mark.usefixtures("_two_threads")
def test_between_steps_the_callers_settings_hold() -> None:
    within: list[int] = []

    @contextmanager
    def counted() -> Iterator[None]:
        within.append(1)
        yield
        within.pop()

    def steps() -> Iterator[int]:
        for position in range(3):
            assert (counts(), within) == ({1}, [1])
            yield position

    for position, step in enumerate(step_by_step(steps(), counted)):
        assert step == position
        assert (counts(), within) == ({2}, [])
    assert (counts(), within) == ({2}, [])


def test_who_has_not_loaded_pytorch_need_not() -> None:
    script = "import sys; from mergerisk.threads import one_thread\nwith one_thread(): assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
