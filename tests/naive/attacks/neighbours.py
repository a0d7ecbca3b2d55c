"""Naive attacks that look at the gradients around the image.

Sources: VMI-FGSM and VNI-FGSM, Wang and He 2021 (arXiv 2103.15571), algorithm 1; PGN, Ge et al. 2023 (2306.05225),
algorithm 1; GRA, Zhu et al., ICCV 2023, algorithm 1; EMI-FGSM, Wang et al. 2021 (2103.10609), and MEF, Qiu et al. 2024
(2405.16181), by their authors' code; AWT, Chen et al., AAAI 2025, by TransferAttack's.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tests.naive.attacks.loop import ForEachImage, Task, Trace, accumulate, euclidean, iterate, normalised, views

if TYPE_CHECKING:
    from torch import Tensor


def tune_variance(task: Task, neighbours: int, radius: float, look_ahead: float, mu: float | None = None) -> Trace:
    """``v`` is what the neighbours' mean gradient of the step before differed by; g + v is followed.

    g is taken at ``x_adv + look_ahead m``; the neighbours lie around ``x_adv``, before it moves; or, if ``mu`` is
    given, around ``x_adv + look_ahead m'``, where m' is the momentum that g + v makes of m.
    """
    variance = torch.zeros_like(task.image)

    def ascent(adversarial: Tensor, momentum: Tensor) -> Tensor:
        nonlocal variance
        gradient = task.ascent(adversarial + look_ahead * momentum)
        followed = gradient + variance
        if not task.last:
            centre = adversarial
            if mu is not None:
                smoothed = followed
                for smooth in task.gradient:
                    smoothed = smooth(smoothed)
                centre = adversarial + look_ahead * accumulate(momentum, smoothed, mu)
            total = torch.zeros_like(gradient)
            for _ in range(neighbours):
                total += task.ascent(task.around(centre, radius * task.epsilon))
            variance = total / neighbours - gradient
        return followed

    return iterate(task, ascent)


@ForEachImage
def vmi_fgsm(task: Task, neighbours: int = 20, radius: float = 1.5) -> Trace:
    return tune_variance(task, neighbours, radius, look_ahead=0.0)


@ForEachImage
def vni_fgsm(task: Task, neighbours: int = 20, radius: float = 1.5, neighbours_of: str = "image") -> Trace:
    mu = 1.0 if task.decay is None else task.decay
    ahead = mu if neighbours_of == "look_ahead" else None
    return tune_variance(task, neighbours, radius, look_ahead=task.per_pixel(task.alpha) * mu, mu=ahead)


@ForEachImage
def pgn(task: Task, neighbours: int = 20, radius: float = 3.0, balance: float = 0.5) -> Trace:
    """Every neighbour's gradient is mixed with the one a step against it: both small where the region is flat."""

    def ascent(adversarial: Tensor, _: Tensor) -> Tensor:
        total = torch.zeros_like(adversarial)
        for _neighbour in range(neighbours):
            point = task.around(adversarial, radius * task.epsilon)
            here = task.ascent(point)
            below = task.ascent(point - task.per_pixel(task.alpha) * normalised(here))
            total += (1 - balance) * here + balance * below
        return total / neighbours

    return iterate(task, ascent)


@ForEachImage
def gra(task: Task, neighbours: int = 20, radius: float = 3.5, shrink: float = 0.94) -> Trace:
    """The gradient and the neighbours' mean, weighted by the cosine between them."""

    def ascent(adversarial: Tensor, _: Tensor) -> Tensor:
        own = task.ascent(adversarial)
        total = torch.zeros_like(adversarial)
        for _neighbour in range(neighbours):
            total += task.ascent(task.around(adversarial, radius * task.epsilon))
        mean = total / neighbours
        lengths = euclidean(own) * euclidean(mean)
        cosine = float((own * mean).sum()) / lengths if lengths > 0 else 0.0
        return cosine * own + (1 - cosine) * mean

    return iterate(task, ascent, shrink=shrink)


@ForEachImage
def emi_fgsm(task: Task, samples: int = 11, radius: float = 7.0) -> Trace:
    """Along the line of the mean gradient before; at first, when there is none, one point for all."""
    line = torch.zeros_like(task.image)

    def ascent(adversarial: Tensor, _: Tensor) -> Tensor:
        nonlocal line
        total = torch.zeros_like(adversarial)
        count = samples if task.step > 0 else 1
        for i in range(count):
            factor = -radius + 2 * radius * i / (samples - 1) if samples > 1 else -radius
            total += task.ascent(adversarial + factor * task.per_pixel(task.alpha) * line)
        line = normalised(total / count)
        return total / count

    return iterate(task, ascent)


@ForEachImage
def mef(
    task: Task,
    neighbours: int = 20,
    radius: float = 2.0,
    inner_radius: float = 0.15,
    inner_decay: float = 0.9,
) -> Trace:
    """Every neighbour is moved along what the one of its number found at the steps before, signs in turn."""
    found: list[list[Tensor]] = [[] for _ in range(neighbours)]

    def ascent(adversarial: Tensor, _: Tensor) -> Tensor:
        total = torch.zeros_like(adversarial)
        for before in found:
            point = task.around(adversarial, radius * task.epsilon)
            for age, gradient in enumerate(reversed(before)):
                point = point + task.per_pixel(inner_radius * task.epsilon) * (-inner_decay) ** age * gradient
            gradient = task.ascent(point)
            before.append(normalised(gradient))
            total += gradient / neighbours
        return total

    return iterate(task, ascent, decay=0.5)


@ForEachImage
def awt(
    task: Task,
    neighbours: int = 20,
    radius: float = 3.0,
    balance: float = 0.5,
    learning_rate: float = 0.002,
    sharpness: float = 0.005,
    inertia: float = 0.5,
) -> Trace:
    """PGN on a copy of the model whose weights take a sharpness-aware step down the gain before each of its steps."""
    model = copy.deepcopy(task.model).requires_grad_(True)
    own = replace(task, model=model)
    weights = list(model.parameters())
    velocity = [torch.zeros_like(weight) for weight in weights]

    def slopes(adversarial: Tensor) -> list[Tensor]:
        total = torch.zeros(())
        for point in (adversarial, task.image):
            gains = [task.gain(model(view[None])[0]) for view in views(task, point, task.inputs)]
            total = total + sum(gains[1:], gains[0]) / len(gains)
        found = torch.autograd.grad(total, weights, allow_unused=True) if weights else []
        return [torch.zeros_like(w) if f is None else f for w, f in zip(weights, found, strict=True)]

    def tune(adversarial: Tensor) -> None:
        before = [weight.detach().clone() for weight in weights]
        uphill = slopes(adversarial)
        length = sum(float((slope**2).sum()) for slope in uphill) ** 0.5
        with torch.no_grad():
            for weight, slope in zip(weights, uphill, strict=True):
                weight += sharpness * slope / length if length > 0 else 0.0
        there = slopes(adversarial)
        with torch.no_grad():
            for weight, old, speed, slope in zip(weights, before, velocity, there, strict=True):
                speed.mul_(inertia).add_(slope)
                weight.copy_(old - learning_rate * speed)

    def ascent(adversarial: Tensor, _: Tensor) -> Tensor:
        if weights:
            tune(adversarial)
        total = torch.zeros_like(adversarial)
        for _neighbour in range(neighbours):
            point = own.around(adversarial, radius * own.epsilon)
            here = own.ascent(point)
            below = own.ascent(point - own.per_pixel(own.alpha) * normalised(here))
            total += (1 - balance) * here + balance * below
        return total / neighbours

    return iterate(own, ascent)
