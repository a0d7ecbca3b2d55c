"""How several models are followed at once, image by image, from the papers' algorithms and the authors' code with a
batch of one.

* SVRE (arXiv 2111.10752, algorithm 1; inner gradients over their mean absolute value, as in the authors' code).
* CWA (arXiv 2303.09105, algorithm 1 with momentum; sizes relative to epsilon = 16/255).
* AdaEA (arXiv 2308.02897): beta times the sum of the others' loss ratios through a softmax; a pixel stays where the
  mean cosine of the members' gradients over channels is below the threshold.
* SMER (CVPR 2024): the authors' loop, SGD with weight decay on the members' weights.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.naive.attacks.loop import ForEachImage, Task, Trace, accumulate, iterate, move, unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Model = Callable[[Tensor], Tensor]


def fused(models: Sequence[Model], weights: Sequence[float]) -> Model:
    def logits(images: Tensor) -> Tensor:
        total = 0 * models[0](images)
        for model, weight in zip(models, weights, strict=True):
            total = total + weight * model(images)
        return total

    return logits


def alone(task: Task) -> list[Task]:
    """The task for each member; the task's own model is all of them."""
    return [replace(task, model=model) for model in task.model.members]  # type: ignore[attr-defined]


def together(task: Task, point: Tensor) -> Tensor:
    members = alone(task)
    if task.model.combine == "loss":  # type: ignore[attr-defined]
        return sum(member.ascent(point) for member in members) / len(members)  # type: ignore[return-value]
    each = [1 / len(members)] * len(members)
    return replace(task, model=fused([member.model for member in members], each)).ascent(point)


def inner_move(task: Task, point: Tensor, direction: Tensor, size: float) -> Tensor:
    return move(task.image, point, direction, task.epsilon, size, task.norm)


def cross_entropy(model: Model, point: Tensor, label: int) -> float:
    with torch.no_grad():
        z = model(point[None])[0]
    return math.log(sum(math.exp(float(v - z.max())) for v in z)) + float(z.max() - z[label])


@ForEachImage
def svre(task: Task, updates: int = 4, inner_decay: float = 1.0) -> Trace:
    members = alone(task)

    def ascent(x: Tensor, _: Tensor) -> Tensor:
        g_ens = together(task, x)
        inner, momentum = x, torch.zeros_like(x)
        for _m in range(updates * len(members)):
            k = int(float(task.draws.uniform(like=x[None])[0]) * len(members))
            g = members[k].ascent(inner) - (members[k].ascent(x) - g_ens)
            momentum = accumulate(momentum, g, inner_decay)
            inner = inner_move(task, inner, momentum, task.alpha)
        return momentum

    return iterate(task, ascent)


@ForEachImage
def cwa(task: Task, inner_decay: float = 1.0) -> Trace:
    members = alone(task)
    state = {"momentum": torch.zeros_like(task.image)}

    def ascent(x: Tensor, _: Tensor) -> Tensor:
        inner = inner_move(task, x, together(task, x), -task.epsilon / 15)
        for member in members:
            g = member.ascent(inner)
            state["momentum"] = inner_decay * state["momentum"] + unit(g, "l2")
            inner = task.project(inner + 250 / (16 / 255) * task.epsilon * state["momentum"])
        return inner - x

    return iterate(task, ascent)


@ForEachImage
def adaea(task: Task, beta: float = 10.0, threshold: float = -0.3) -> Trace:
    members = alone(task)

    def ascent(x: Tensor, _: Tensor) -> Tensor:
        gradients = [member.ascent(x) for member in members]
        stepped = [inner_move(task, x, g, task.alpha) for g in gradients]
        loss = [[cross_entropy(m.model, at, task.label) for at in stepped] for m in members]
        every = range(len(members))
        w = [beta * sum(loss[i][j] / loss[i][i] for i in every if i != j) for j in every]
        powers = [math.exp(v - max(w)) for v in w]
        weights = [power / sum(powers) for power in powers]
        g = replace(task, model=fused([m.model for m in members], weights)).ascent(x)
        for row in range(x.shape[1]):
            for column in range(x.shape[2]):
                cosines = []
                for i in every:
                    others = []
                    for j in every:
                        if i != j:
                            a, b = gradients[i][:, row, column], gradients[j][:, row, column]
                            others.append(float((a * b).sum()) / math.sqrt(float((a * a).sum() * (b * b).sum())))
                    cosines.append(sum(others) / len(others))
                if sum(cosines) / len(cosines) < threshold:
                    g[:, row, column] = 0
        return g

    return iterate(task, ascent)


@ForEachImage
def smer(task: Task, rounds: int = 4, rate: float = 0.02, weight_decay: float = 0.002) -> Trace:
    members = alone(task)
    weights = torch.ones(len(members), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([weights], lr=rate, weight_decay=weight_decay)

    def ascent(x: Tensor, _: Tensor) -> Tensor:
        inner, momentum = x, torch.zeros_like(x)
        for _round in range(rounds):
            draws = task.draws.uniform(len(members), like=x[None])[0].tolist()
            for k in sorted(range(len(members)), key=draws.__getitem__):
                scaled = replace(task, model=fused([members[k].model], [float(weights[k].detach())]))
                g = scaled.ascent(inner)
                logits = [w * m.model(inner[None])[0].detach() for w, m in zip(weights, members, strict=True)]
                z = sum(logits) / len(members)
                lost = torch.logsumexp(z, 0) - z[task.label]  # type: ignore[arg-type, index]
                optimiser.zero_grad()
                (-torch.log(lost)).backward()
                optimiser.step()
                momentum = accumulate(momentum, g, 1.0)
                inner = inner_move(task, inner, momentum, task.alpha)
        return momentum

    return iterate(task, ascent)
