"""Models whose gradients, curvature and features are known in closed form, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mergerisk.models import Classifier, Encoder, Head

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = (3, 2, 2)
PIXELS = 12


def draws(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Linear(nn.Module):
    """Pixels → W x + b, classes × pixels."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", weight.new_zeros(len(weight)) if bias is None else bias)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.mT + self.bias


class Quadratic(nn.Module):
    """Logits −½ xᵀ A_k x: under the loss ``logit``, the Hessian for class k is A_k."""

    forms: Tensor

    def __init__(self, forms: Tensor) -> None:
        super().__init__()
        self.register_buffer("forms", forms)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return -0.5 * torch.einsum("nd,kde,ne->nk", flat, self.forms, flat)


class Layers(nn.Module):
    """A list of linear layers, tanh in between if asked for: pixels → features."""

    def __init__(self, weights: Sequence[Tensor], bend: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for weight in weights:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
            layer.weight = nn.Parameter(weight.clone())
            self.layers.append(layer)
        self.bend = bend

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = pixels.flatten(1)
        for layer in self.layers:
            hidden = layer(hidden)
            hidden = torch.tanh(hidden) if self.bend else hidden
        return hidden


def encoder(weights: Sequence[Tensor], bend: bool = False) -> Encoder:
    """An encoder of 2 × 2 pixels that are taken as they are."""
    found = Encoder(Layers(weights, bend), width=len(weights[-1]), image_size=2, mean=(0.0,) * 3, std=(1.0,) * 3)
    return found.double().requires_grad_(False).eval()


def classifier(weights: Sequence[Tensor], head: Tensor, bend: bool = False) -> Classifier:
    return Classifier(encoder(weights, bend), Head(head, head.new_zeros(len(head)))).eval()


def small(seed: int, classes: int = 3, base: int | None = None) -> Classifier:
    """Three bent layers of six numbers; with ``base``, near the one of that seed."""
    shapes = ((6, PIXELS), (6, 6), (6, 6))
    weights = [0.7 * draws(seed + 100 * place, *shape) for place, shape in enumerate(shapes)]
    if base is not None:
        near = [0.7 * draws(base + 100 * place, *shape) for place, shape in enumerate(shapes)]
        weights = [one + 0.3 * other for one, other in zip(near, weights, strict=True)]
    return classifier(weights, draws(7, classes, 6), bend=True)
