"""Which images of a task are attacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from mergerisk.tasks import Task


def attacked(task: Task, count: int) -> torch.Tensor:
    """Indices of ``count`` test images: the same for every seed, so that outcomes can be paired."""
    from mergerisk.randomness import generator
    from mergerisk.tasks import select_balanced

    return select_balanced(task.test.labels, count, generator(0, "attacked", task.name))
