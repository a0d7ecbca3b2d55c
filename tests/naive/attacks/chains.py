"""Naive learning to transform (L2T, Zhu et al. 2024, arXiv 2405.14077), by the authors' code: where an operation of
theirs gives several copies, one of them is drawn; noise is a share of ε."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tests.naive.attacks.inputs import admixed, between, borders, order, resize, spectral
from tests.naive.attacks.loop import ForEachImage, Task, Trace, iterate, views

if TYPE_CHECKING:
    from collections.abc import Sequence

FAMILIES: dict[str, list[Any]] = {
    "identity": [None],
    "rotate": [30, 60, 90, 120, 150, 180, 210, 240, 270, 300],
    "scale": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    "resize": [1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4, 1.45, 1.5, 1.55],
    "shuffle": [3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    "admix": [0.2, 0.2, 0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4],
    "drop": [
        [0.1], [0.1, 0.2], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4, 0.5],
        [0.2, 0.3, 0.4, 0.5], [0.1, 0.3, 0.4, 0.5], [0.1, 0.2, 0.4, 0.5], [0.1, 0.2, 0.3, 0.5], [0.1, 0.2, 0.3, 0.4],
    ],
    "mask": [2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    "spectrum": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "crop": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "shift": [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9],
}  # fmt: skip


def drawn(task: Task, count: int) -> list[float]:
    return task.draws.uniform(count, like=torch.zeros(1, dtype=torch.float64)).flatten().tolist()


def whichever(task: Task, count: int) -> int:
    """One of so many, all as likely."""
    return math.floor(drawn(task, 1)[0] * count)


def looked_up(image: Tensor, place: Any) -> Tensor:
    """Every pixel shows what lies where ``place`` (row, column → row, column) says, bilinear; black outside."""
    _, height, width = image.shape
    found = [place(row, column) for row in range(height) for column in range(width)]
    rows, columns = torch.tensor(found, dtype=torch.float64).T
    return between(image, rows, columns).reshape(image.shape)


def performed(task: Task, image: Tensor, family: str, strength: Any, noise: float) -> Tensor:
    """One view of C×H×W."""
    _, height, width = image.shape
    middle, centre = (height - 1) / 2, (width - 1) / 2
    if family == "identity":
        return image
    if family == "rotate":  # counter-clockwise
        angle = math.radians(strength / 2 ** whichever(task, 5))

        def turned(row: int, column: int) -> tuple[float, float]:
            y, x = row - middle, column - centre
            return (
                middle + x * math.sin(angle) + y * math.cos(angle),
                centre + x * math.cos(angle) - y * math.sin(angle),
            )

        return looked_up(image, turned)
    if family == "shift":
        by = strength * (whichever(task, 5) + 1) / 5
        return looked_up(image, lambda row, column: (row - by, column - by))
    if family == "scale":
        return image / 2 ** whichever(task, strength)
    if family == "resize":
        grown, down, right = drawn(task, 3)
        canvas = [math.floor(strength * height), math.floor(strength * width)]
        tall, wide = (
            height + math.floor(grown * (canvas[0] - height)),
            width + math.floor(grown * (canvas[1] - width)),
        )
        top, left = math.floor(down * (canvas[0] - tall)), math.floor(right * (canvas[1] - wide))
        padded = torch.zeros(len(image), *canvas, dtype=torch.float64)
        padded[:, top : top + tall, left : left + wide] = resize(image, (tall, wide))
        return resize(padded, (height, width))
    if family == "shuffle":
        if drawn(task, 1)[0] >= 0.5:
            return blocks_moved(task, image.mT, strength).mT
        return blocks_moved(task, image, strength)
    if family == "admix":
        (mixed,) = admixed(1, strength, 1)(task, image)
        return mixed / 2 ** whichever(task, 3)
    if family == "drop":
        chance = strength[whichever(task, len(strength))]
        gone = task.draws.noise(like=image[None])[0] < chance
        return torch.where(gone, torch.zeros_like(image), image)
    if family == "mask":
        row, column = whichever(task, strength), whichever(task, strength)
        ends = [round(height / strength * k) for k in (row, row + 1)]
        sides = [round(width / strength * k) for k in (column, column + 1)]
        hidden = image.clone()
        hidden[:, ends[0] : ends[1], sides[0] : sides[1]] = 0.0
        return hidden
    if family == "spectrum":
        (view,) = spectral(1, strength, noise)(task, image)
        return view
    if family == "crop":
        ratio = strength + (1 - strength) * (whichever(task, 5) + 1) / 5
        tall, wide = max(1, math.floor(ratio * height)), max(1, math.floor(ratio * width))
        top, left = (height - tall) // 2, (width - wide) // 2
        return resize(image[:, top : top + tall, left : left + wide], (height, width))
    raise ValueError(family)


def blocks_moved(task: Task, image: Tensor, blocks: int) -> Tensor:
    """Strips change places, then within each of them its blocks."""
    _, height, width = image.shape
    rows = borders(drawn(task, blocks), height)
    strips = []
    for strip in order(drawn(task, blocks)):
        columns = borders(drawn(task, blocks), width)
        parts = [
            image[:, rows[strip] : rows[strip + 1], columns[block] : columns[block + 1]]
            for block in order(drawn(task, blocks))
        ]
        strips.append(torch.cat(parts, dim=2))
    return torch.cat(strips, dim=1)


@ForEachImage
def l2t(
    task: Task,
    chains: int = 20,
    length: int = 2,
    learning_rate: float = 0.01,
    noise: float = 1.0,
    leave_out: Sequence[str] = (),
) -> Trace:
    """Each step, chains drawn by softmax(θ); θ then rises along the gradient of the mean of their losses times their
    probabilities."""
    pool = [
        (family, one) for family, strengths in FAMILIES.items() if family not in leave_out for one in strengths
    ]
    theta = torch.zeros(len(pool), dtype=torch.float64, requires_grad=True)

    def ascent(adversarial: Tensor, _: Tensor) -> Tensor:
        nonlocal theta
        chances = torch.exp(theta - theta.max().detach())
        chances = chances / chances.sum()
        ends = list(itertools.accumulate(chances.tolist()))
        total, expected = torch.zeros_like(adversarial), torch.zeros((), dtype=torch.float64)
        for _ in range(chains):
            chain = [sum(end <= number for end in ends) for number in drawn(task, length)]
            leaf = adversarial.clone().requires_grad_(True)
            view, chance = leaf, torch.ones((), dtype=torch.float64)
            for place in chain:
                view = performed(task, view, *pool[place], noise)
                chance = chance * chances[place]
            gains = [task.gain(task.model(shown[None])[0]) for shown in views(task, view, task.inputs)]
            gain = sum(gains[1:], gains[0]) / len(gains)
            total += torch.autograd.grad(gain, leaf)[0]
            expected = expected + float(gain.detach()) * chance
        (slope,) = torch.autograd.grad(expected / chains, theta)
        theta = (theta + learning_rate * slope).detach().requires_grad_(True)
        return total / chains

    return iterate(task, ascent)
