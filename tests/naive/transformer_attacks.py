"""Naive attacks on vision transformers, on the networks of :mod:`tests.naive.model_attacks`: float64, one image at a
time.

Sources: ATT, Ming et al., NeurIPS 2024, and FPR, Ren et al. 2025 (arXiv 2503.15404), by their authors' code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.naive.attacks.inputs import resize
from tests.naive.attacks.loop import ForEachImage, Task, Trace, iterate
from tests.naive.model_attacks import ONE, Rules, follow, over_views, patch_corners, vjp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def variance(values: Tensor) -> float:
    """Unbiased."""
    mean = float(values.mean())
    return float(((values - mean) ** 2).sum()) / (values.numel() - 1)


class Back:
    """One kind of gradient on its way back through the blocks, the deepest first."""

    def __init__(self, shares: Sequence[float], taming: float, adaptation: float) -> None:
        self.shares, self.taming, self.adaptation = list(shares), taming, adaptation
        self.before = 0.0

    def __call__(self, gradient: Tensor) -> Tensor:
        scaled = gradient * self.shares.pop(0)
        factor = self.taming
        if self.before > 0:
            growth = math.sqrt(variance(scaled) / self.before)
            factor = min(1.0, max(0.0, self.taming + self.adaptation * (1 - growth)))
        made = self.extremes_times(scaled, factor)
        self.before = variance(made)
        return made

    def extremes_times(self, scaled: Tensor, factor: float) -> Tensor:
        """tokens×width, each channel's largest and smallest value times the factor."""
        made = scaled.clone()
        for channel in range(scaled.shape[1]):
            for token in (int(scaled[:, channel].argmax()), int(scaled[:, channel].argmin())):
                made[token, channel] *= factor
        return made


class BackThroughMaps(Back):
    def extremes_times(self, scaled: Tensor, factor: float) -> Tensor:
        """heads×queries×keys: rows and columns of each head's largest and smallest entry, in turn."""
        made = scaled.clone()
        for head, one in enumerate(scaled):
            for place in (int(one.argmax()), int(one.argmin())):
                made[head, place // one.shape[1], :] *= factor
                made[head, :, place % one.shape[1]] *= factor
        return made


class InTurn:
    """Queries, keys and values one after another, each kind with its own past."""

    def __init__(self, kinds: Sequence[Back]) -> None:
        self.kinds, self.calls = kinds, 0

    def __call__(self, gradient: Tensor) -> Tensor:
        self.calls += 1
        return self.kinds[(self.calls - 1) % len(self.kinds)](gradient)


def importances(task: Task, patch: int, grid: int) -> list[float]:
    """Of the patches, row by row, from 0 to 1: the last block but one's features times the gradient of the summed
    logits, spread over the image, averaged over each patch."""
    network = task.model
    block = len(network.blocks) - 2
    features = network.features(task.image, block)
    (slopes,) = vjp(lambda f: network.finish(f, block).sum(), [features], ONE)
    worth = (features * slopes).sum(dim=1)[1:].reshape(1, grid, grid)
    height, width = task.image.shape[-2:]
    spread = resize(worth, (height, width))[0]
    means = [float(spread[y : y + patch, x : x + patch].mean()) for y, x in patch_corners(task.image, patch)]
    return [(mean - min(means)) / (max(means) - min(means)) for mean in means]


@ForEachImage
def att(
    task: Task,
    *,
    patch: int,
    grid: int,
    attention: float = 0.45,
    qkv: float = 0.7,
    mlp: float = 0.65,
    maps: str = "scores",
    tokens: str = "outputs",
    taming: float = 0.5,
    adaptation: float = 0.01,
    attended: float = 10 / 12,
    least: float = 0.4,
    span: float = 0.4,
) -> Trace:
    """Extremes shrink by a factor that follows variances; deep maps let nothing through; patches come and go."""
    network = task.model
    depth = len(network.blocks)
    weights = importances(task, patch, grid)

    def rules() -> Rules:
        def back(share: float) -> Back:
            return Back([share] * depth, taming, adaptation)

        shares = [attention if block < round(attended * depth) else 0.0 for block in reversed(range(depth))]
        made: dict[str, Callable[[Tensor], Tensor]] = {
            {"weights": "attention_map", "scores": "scores"}[maps]: BackThroughMaps(shares, taming, adaptation)
        }
        if tokens == "outputs":
            made |= {"qkv_outputs": InTurn([back(qkv), back(qkv), back(qkv)]), "mlp_output": back(mlp)}
        else:
            made |= {"qkv_tokens": back(qkv), "mlp_tokens": back(mlp)}
        return Rules(**made)

    def ascent(point: Tensor, _: Tensor) -> Tensor:
        numbers = task.draws.uniform(len(weights), like=task.image[None])[0]
        mask = torch.zeros_like(task.image)
        for (y, x), weight, number in zip(patch_corners(task.image, patch), weights, numbers, strict=True):
            chance = 0.99 - (0.99 - least - span * weight) * (task.step + 1) / task.steps
            mask[:, y : y + patch, x : x + patch] = float(number <= chance)
        seen = task.image + (point - task.image) * mask
        return mask * over_views(task, seen, lambda view: network.gradient(view, task.gain, rules()))

    return iterate(task, ascent)


@ForEachImage
def fpr(
    task: Task,
    *,
    blocks: Sequence[int],
    spread: float = 25.0,
    scale: float = 0.8,
    memory: float = 0.3,
) -> Trace:
    """Maps of some blocks are multiplied at random and normalised again; branches keep a share of what they put out
    at the gradient before."""
    network = task.model
    kept: dict[tuple[int, str], Tensor] = {}

    def slowed(key: tuple[int, str], output: Tensor) -> Tensor:
        made = scale * output + (memory * kept[key] if key in kept else 0.0)
        kept[key] = made.detach()
        return made

    def logits(image: Tensor) -> Tensor:
        hidden = network.stem(image)
        for number, block in enumerate(network.blocks):
            tokens = block.norm_before(hidden)
            query, key, value = (block.project(kind, tokens) for kind in "qkv")
            weights = block.attention_map(query, key)
            if number in blocks:
                drawn = task.draws.noise(like=weights.detach()[None])[0]
                raised = torch.exp(weights * (1 + spread * (2 * drawn - 1)))
                weights = raised / raised.sum(dim=2, keepdim=True)
            hidden = hidden + slowed((number, "attention"), block.mix(weights, value))
            hidden = hidden + slowed((number, "mlp"), block.mlp(block.norm_after(hidden)))
        return network.top(hidden)

    def gradient(seen: Tensor) -> Tensor:
        return vjp(lambda x: task.gain(logits(x)), [seen], ONE)[0]

    return follow(task, gradient)
