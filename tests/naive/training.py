"""Training defenses transcribed, one batch each, for a small model whose weights are given by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Weights = Mapping[str, Tensor]


def features(weights: Weights, images: Tensor) -> Tensor:
    """Two linear layers with tanh between, on pixels at mean and standard deviation ½."""
    pixels = ((images - 0.5) / 0.5).flatten(1)
    hidden = torch.tanh(pixels @ weights["first.weight"].T + weights["first.bias"])
    return hidden @ weights["second.weight"].T + weights["second.bias"]


def logits(weights: Weights, head: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
    return features(weights, images) @ head[0].T + head[1]


def probabilities(said: Tensor) -> Tensor:
    exponentials = torch.exp(said)
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def entropies(said: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([-torch.log(row[label]) for row, label in zip(probabilities(said), labels, strict=True)])


def divergences(said: Tensor, other: Tensor) -> Tensor:
    p, q = probabilities(said), probabilities(other)
    return (p * (torch.log(p) - torch.log(q))).sum(dim=1)


def climbed(
    gain: Callable[[Tensor], Tensor], images: Tensor, start: Tensor, epsilon: float, steps: int, alpha: float
) -> Tensor:
    """PGD in the L∞ ball."""
    current = start
    for _ in range(steps):
        leaf = current.clone().requires_grad_()
        (slope,) = torch.autograd.grad(gain(leaf), leaf)
        moved = current + alpha * torch.sign(slope)
        current = torch.minimum(torch.maximum(moved, images - epsilon), images + epsilon).clamp(0, 1)
    return current


def gradients(loss: Callable[[Weights], Tensor], weights: Weights) -> dict[str, Tensor]:
    """Of the loss by every weight."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    return dict(zip(leaves, torch.autograd.grad(loss(leaves), [*leaves.values()]), strict=True))


def sharpness_aware(loss: Callable[[Weights], Tensor], weights: Weights, rho: float) -> dict[str, Tensor]:
    """SAM: the gradient at w + ρ g/‖g‖."""
    slopes = gradients(loss, weights)
    length = sum(float((slope**2).sum()) for slope in slopes.values()) ** 0.5
    return gradients(loss, {name: weight + rho * slopes[name] / length for name, weight in weights.items()})


def weights_perturbed(loss: Callable[[Weights], Tensor], weights: Weights, gamma: float) -> dict[str, Tensor]:
    """AWP: the gradient where every matrix has moved by γ of its own length."""
    slopes = gradients(loss, weights)
    away = {}
    for name, weight in weights.items():
        if weight.ndim > 1:
            own, slope = float((weight**2).sum()) ** 0.5, slopes[name]
            away[name] = weight + gamma * own * slope / float((slope**2).sum()) ** 0.5
        else:
            away[name] = weight
    return gradients(loss, away)


def slope_by_image(said: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """N × pixels: the gradient of each image's cross-entropy, differentiable by what it was made from."""
    found = []
    for image, label in zip(images, labels, strict=True):
        leaf = image[None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(entropies(said(leaf), label[None]).sum(), leaf, create_graph=True)
        found.append(slope.flatten())
    return torch.stack(found)


def mean_cosine(own: Tensor, others: Sequence[Tensor]) -> Tensor:
    """The mean absolute cosine, over images and models."""
    found = [
        abs((a * b).sum()) / ((a**2).sum() ** 0.5 * (b**2).sum() ** 0.5)
        for other in others
        for a, b in zip(own, other, strict=True)
    ]
    return torch.stack(found).mean()
