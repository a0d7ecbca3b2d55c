"""Naive attacks on features: float64, one image at a time, given the features as a function of C×H×W."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.naive.attacks.loop import ForEachImage, Task, Trace, euclidean, iterate, views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Features = Callable[[Tensor], Tensor]


@ForEachImage
def feature(task: Task, *, features: Sequence[Features], distance: str = "euclidean") -> Trace:
    """Away from the clean image's features, of one encoder or on average over several, from a point that is uniform
    in the ball."""
    clean = [each(task.image).flatten() for each in features]

    def gain(view: Tensor) -> Tensor:
        total = torch.zeros(())
        for each, old in zip(features, clean, strict=True):
            new = each(view).flatten()
            if distance == "cosine":
                far = 1 - (new * old).sum() / torch.sqrt((new * new).sum()) / euclidean(old)
            else:
                far = ((new - old) ** 2).sum() / euclidean(old) ** 2
            total = total + far / len(features)
        return total

    def ascent(point: Tensor, _: Tensor) -> Tensor:
        leaf = point.detach().clone().requires_grad_(True)
        gains = [gain(view) for view in views(task, leaf, task.inputs)]
        return torch.autograd.grad(sum(gains[1:], gains[0]) / len(gains), leaf)[0]

    if task.norm == "linf":
        start = task.around(task.image, task.epsilon)
    else:
        direction = task.draws.normal(like=task.image[None])[0]
        share = float(task.draws.uniform(1, like=task.image[None])[0])
        start = task.image + task.epsilon * share ** (1 / task.image.numel()) * direction / euclidean(direction)
    return iterate(task, ascent, decay=0.0, start=task.project(start))
