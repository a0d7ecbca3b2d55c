"""Naive FGSM and its iterated descendants.

Sources: FGSM, Goodfellow et al. 2015 (arXiv 1412.6572); I-FGSM, Kurakin et al. 2017 (1607.02533); PGD, Madry et
al. 2018 (1706.06083); MI-FGSM, Dong et al. 2018 (1710.06081); NI-FGSM, Lin et al. 2020 (1908.06281); TI-FGSM,
Dong et al. 2019 (1904.02884).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tests.naive.attacks.loop import ForEachImage, Task, Trace, euclidean, iterate, with_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@ForEachImage
def fgsm(task: Task) -> Trace:
    """One step of size epsilon."""
    return iterate(replace(task, steps=1, step_size=task.epsilon), lambda point, _: task.ascent(point))


@ForEachImage
def i_fgsm(task: Task) -> Trace:
    """Iterated FGSM (BIM), no momentum, start at the clean image."""
    return iterate(task, lambda point, _: task.ascent(point), decay=0.0)


@ForEachImage
def pgd(task: Task) -> Trace:
    """I-FGSM from a point that is uniform in the ball, put into the box."""
    if task.norm == "linf":
        start = task.around(task.image, task.epsilon)
    else:
        # A normal vector has no preferred direction; the share of the ball within r of its centre is (r / eps)^d.
        direction = task.draws.normal(like=task.image[None])[0]
        share = float(task.draws.uniform(1, like=task.image[None])[0])
        radius = task.epsilon * share ** (1 / task.image.numel())
        start = task.image + radius * direction / euclidean(direction)
    return iterate(task, lambda point, _: task.ascent(point), decay=0.0, start=task.project(start))


@ForEachImage
def mi_fgsm(task: Task) -> Trace:
    """Momentum over L1-normalised gradients."""
    return iterate(task, lambda point, _: task.ascent(point))


def nesterov(task: Task) -> Trace:
    """The gradient is taken at ``x_adv + s(alpha) mu m``; that point is put into neither ball nor box."""
    mu = 1.0 if task.decay is None else task.decay
    return iterate(task, lambda point, momentum: task.ascent(point + task.per_pixel(task.alpha) * mu * momentum))


ni_fgsm = ForEachImage(nesterov)


def gaussian_kernel(kernel_size: int, sigma: float) -> list[list[float]]:
    """Normalised outer product of a standard normal density at linspace(-sigma, sigma, kernel_size)."""
    gap = 2 * sigma / (kernel_size - 1)
    at = [-sigma + gap * i for i in range(kernel_size)]
    row = [math.exp(-0.5 * x * x) for x in at]
    total = sum(a * b for a in row for b in row)
    return [[a * b / total for b in row] for a in row]


def smoothed(kernel_size: int = 15, sigma: float = 3.0) -> Callable[[Tensor], Tensor]:
    """Correlate each channel of C×H×W with an odd square kernel; outside the picture counts as zero."""
    kernel = gaussian_kernel(kernel_size, sigma)
    reach = kernel_size // 2

    def smooth(gradient: Tensor) -> Tensor:
        height, width = gradient.shape[-2:]
        result = torch.zeros_like(gradient)
        for i, row in enumerate(kernel):
            for j, weight in enumerate(row):
                down, right = i - reach, j - reach
                rows = [y for y in range(height) if 0 <= y + down < height]
                columns = [x for x in range(width) if 0 <= x + right < width]
                if not rows or not columns:
                    continue
                top, bottom, first, last = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
                source = gradient[:, top + down : bottom + down, first + right : last + right]
                result[:, top:bottom, first:last] += weight * source
        return result

    return smooth


@ForEachImage
def ti_fgsm(task: Task, kernel_size: int = 15, sigma: float = 3.0) -> Trace:
    """The gradient is smoothed before it is normalised; ``decay=0`` is the variant without momentum."""
    task = with_parts(task, gradient=[smoothed(kernel_size, sigma)])
    return iterate(task, lambda point, _: task.ascent(point))
