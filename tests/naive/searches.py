"""APGD and Square image by image, in float64 and plain Python, from the papers' algorithms.

APGD (arXiv 2003.01690): algorithm 1 with the conditions of section 3.2; checkpoints in whole numbers of steps.
Square (arXiv 1912.00049): algorithm 1 with 2 for L∞ and 3 for L2; bumps are figure 3's, section 3.4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.naive.attacks.loop import euclidean, project, unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.naive.attacks.loop import Draws


def dlr(logits: Tensor, label: int, target: int | None) -> Tensor:
    """Equations 6 and 7."""
    order = sorted(range(len(logits)), key=lambda k: -float(logits[k].detach()))
    if target is not None:
        return (logits[target] - logits[label]) / (
            logits[order[0]] - (logits[order[2]] + logits[order[3]]) / 2 + 1e-12
        )
    other = order[0] if order[0] != label else order[1]
    return (logits[other] - logits[label]) / (logits[order[0]] - logits[order[2]] + 1e-12)


def cross_entropy(logits: Tensor, label: int, target: int | None) -> Tensor:
    lost = torch.logsumexp(logits, 0) - logits[label if target is None else target]
    return lost if target is None else -lost


def apgd(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    label: int,
    start: Tensor,
    *,
    epsilon: float,
    norm: str,
    loss: Callable[[Tensor, int, int | None], Tensor],
    steps: int,
    target: int | None = None,
) -> Tensor:
    """The adversarial image."""

    def ask(point: Tensor) -> tuple[float, Tensor, bool]:
        leaf = point.detach().clone().requires_grad_()
        logits = model(leaf[None])[0]
        gain = loss(logits, label, target)
        (gradient,) = torch.autograd.grad(gain, leaf)
        said = int(logits.argmax())
        return float(gain.detach()), gradient, said != label if target is None else said == target

    w, interval = [0], max(int(0.22 * steps), 1)
    while w[-1] < steps:
        w.append(w[-1] + interval)
        interval = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    f, g, fools = ask(start)
    gains = [f]
    tried = [(fools, f, start)]
    f_max, x_max, g_max = f, start, g
    eta, etas, maxima, rises = 2 * epsilon, [2 * epsilon], [f], 0
    current, previous = start, start
    for k in range(steps):
        z = project(image, current + eta * unit(g, norm), epsilon, norm)
        if k > 0:
            z = project(image, current + 0.75 * (z - current) + 0.25 * (current - previous), epsilon, norm)
        previous, current = current, z
        f, g, fools = ask(z)
        rose = f > gains[-1]
        gains.append(f)
        tried.append((fools, f, z))
        rises = int(rose) if k in w else rises + rose
        if f > f_max:
            f_max, x_max, g_max = f, z, g
        if k + 1 in w[1:]:
            j = w.index(k + 1)
            first = rises < 0.75 * (w[j] - w[j - 1])
            second = j > 1 and etas[-1] == eta and len(etas) > 1 and etas[-2] == etas[-1] and maxima[-1] >= f_max
            etas.append(eta / 2 if first or second else eta)
            maxima.append(f_max)
            if first or second:
                eta /= 2
                current, g = x_max, g_max
                gains[-1] = f_max
    return max(tried, key=lambda one: (one[0], one[1]))[2]


def bump(height: int, width: int) -> list[list[float]]:
    """Rectangles around the middle, of height 1, 1/4, 1/9 …, added up, of length 1."""
    values = [[0.0] * width for _ in range(height)]
    for ring in range(max(height // 2 + 1, width // 2 + 1)):
        for row in range(height):
            for column in range(width):
                if abs(row - height // 2) <= ring and abs(column - width // 2) <= ring:
                    values[row][column] += 1 / (ring + 1) ** 2
    length = math.sqrt(sum(v * v for line in values for v in line)) or 1.0
    return [[v / length for v in line] for line in values]


def two_bumps(side: int, turned: bool) -> Tensor:
    up, down = bump(side // 2, side), bump(side - side // 2, side)
    lines = up + [[-v for v in line] for line in down]
    shape = torch.tensor(lines, dtype=torch.float64)
    shape = shape / euclidean(shape)
    return shape.T if turned else shape


def sign(draw: float) -> float:
    return -1.0 if draw < 0.5 else 1.0


def square(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    label: int,
    draws: Draws,
    *,
    epsilon: float,
    norm: str,
    queries: int,
    target: int | None = None,
) -> tuple[Tensor, int]:
    """The adversarial image, and how often the model was asked."""
    channels, height, width = image.shape
    asked = 0

    def gain(point: Tensor) -> float:
        nonlocal asked
        asked += 1
        z = model(point[None])[0]
        aim = label if target is None else target
        margin = float(z[aim]) - max(float(z[k]) for k in range(len(z)) if k != aim)
        return -margin if target is None else margin

    def uniform(*shape: int) -> Tensor:
        return draws.uniform(*shape, like=image[None])[0]

    def spent(change: Tensor) -> Tensor:
        length = euclidean(change)
        return image + epsilon * change / length if length > 0 else image

    if norm == "linf":
        u = uniform(channels, 1, width)
        best = image.clone()
        for c in range(channels):
            for column in range(width):
                best[c, :, column] += epsilon * sign(float(u[c, 0, column]))
    else:
        side = max(1, min(height, width) // 5)
        above = (height - 5 * side) // 2 if height >= 5 * side else 0
        before = (width - 5 * side) // 2 if width >= 5 * side else 0
        down, across = (height - above) // side, (width - before) // side
        down, across = min(down, height // side), min(across, width // side)
        u = uniform(down * across, 1 + channels)
        change = torch.zeros_like(image)
        for i in range(down):
            for j in range(across):
                own = u[i * across + j]
                top, left = above + i * side, before + j * side
                for c in range(channels):
                    tile = two_bumps(side, float(own[0]) < 0.5) * sign(float(own[1 + c]))
                    change[c, top : top + side, left : left + side] = tile
        best = spent(change)
    best = project(image, best, epsilon, norm)
    found = gain(best)
    for query in range(1, queries):
        u = uniform((2 if norm == "linf" else 5) + channels)
        if found > 0:
            break
        share = query / queries * 10_000
        area = 0.8
        for limit in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000):
            area = area / 2 if share > limit else area
        s = min(max(round(math.sqrt(area * height * width)), 1), height, width)
        if norm == "l2":
            s = max(s, 3)
            s = min(s + 1 if s % 2 == 0 else s, height, width)

        def place(draw: Tensor, total: int, s: int = s) -> int:
            return min(int(float(draw) * (total - s + 1)), total - s)

        top, left = place(u[0], height), place(u[1], width)
        if norm == "linf":
            tried = best.clone()
            for c in range(channels):
                window = image[c, top : top + s, left : left + s]
                tried[c, top : top + s, left : left + s] = window + epsilon * sign(float(u[2 + c]))
        else:
            top_2, left_2 = place(u[2], height), place(u[3], width)
            delta = best - image
            first, both = torch.zeros_like(delta), torch.zeros_like(delta)
            first[:, top : top + s, left : left + s] = 1
            both[:, top_2 : top_2 + s, left_2 : left_2 + s] = 1
            both = torch.maximum(first, both)
            unused = max(epsilon**2 - euclidean(delta) ** 2, 0.0)
            window = delta[:, top : top + s, left : left + s] / (1e-12 + euclidean(delta * first))
            changed = delta * (1 - both)
            for c in range(channels):
                new = two_bumps(s, float(u[4]) < 0.5) * sign(float(u[5 + c])) + window[c]
                budget = math.sqrt(euclidean((delta * both)[c]) ** 2 + unused / channels)
                changed[c, top : top + s, left : left + s] = new / (1e-12 + euclidean(new)) * budget
            tried = spent(changed)
        tried = project(image, tried, epsilon, norm)
        now = gain(tried)
        if now > found:
            best, found = tried, now
    return best, asked
