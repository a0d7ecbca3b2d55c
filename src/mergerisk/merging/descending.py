"""Adam on a loss whose gradient is known: what methods share that minimise something about weights alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def descend(
    start: torch.Tensor,
    gradient: Callable[[torch.Tensor], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
) -> torch.Tensor:
    """Where so many steps of Adam, betas (0.9, 0.999), lead.

    Args:
        start: left as it is.
        gradient: a place → the gradient there, of its shape and dtype.
        steps: at least one.
        learning_rate: about the length of a step in every entry, whatever the gradient's.
    """
    place = start.clone()
    optimizer = torch.optim.Adam([place], lr=learning_rate, betas=(0.9, 0.999))
    for _ in range(steps):
        place.grad = gradient(place)
        optimizer.step()
    place.grad = None
    return place
