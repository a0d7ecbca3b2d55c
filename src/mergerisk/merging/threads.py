"""Merging computes with one thread: most steps are bound by memory, and threads that wait for one another cost
more processor time than they save. Decompositions (TSV-M, Iso) would finish sooner with more."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import torch
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


def step_by_step(steps: Iterator[T]) -> Iterator[T]:
    """The same steps, each with one thread and without gradients; between them the caller's settings hold."""
    threads = ThreadpoolController()
    end = object()
    while True:
        with torch.inference_mode(False), torch.no_grad(), threads.limit(limits=1):
            step = next(steps, end)
        if step is end:
            return
        yield cast("T", step)
