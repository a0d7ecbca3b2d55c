"""The cosine transform, and what views of an image share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import mergerisk as mr
from mergerisk.attacks._transforms import cosine_transform, inverse_cosine_transform
from mergerisk.attacks.parts import InputTransform

if TYPE_CHECKING:
    from collections.abc import Iterator


def defined(values: torch.Tensor, dim: int) -> torch.Tensor:
    """float64, along one axis: c Σ x_n cos(π k (2 n + 1) / 2 N), c = √(1/N) for k = 0, else √(2/N)."""
    lines = values.double().movedim(dim, -1)
    side = lines.shape[-1]
    found = torch.zeros_like(lines)
    for k in range(side):
        scale = math.sqrt((1 if k == 0 else 2) / side)
        for n in range(side):
            found[..., k] += scale * math.cos(math.pi * k * (2 * n + 1) / (2 * side)) * lines[..., n]
    return found.movedim(-1, dim)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 7, 12), (1, 1, 1, 5)])
def test_cosine_transforms_are_what_is_defined(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """By the library in the first two precisions, by matrices in the third."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = defined(defined(images, -1), -2)
    spectrum = cosine_transform(images)
    assert spectrum.dtype == dtype
    # A coefficient sums so many products along each axis, and rounds each, and the sum of sides, once.
    bound = sum(shape[-2:]) * torch.finfo(dtype).eps * float(expected.norm())
    torch.testing.assert_close(spectrum.double(), expected, rtol=0, atol=bound)
    torch.testing.assert_close(
        inverse_cosine_transform(spectrum).double(), images.double(), rtol=0, atol=2 * bound
    )


@pytest.mark.parametrize("transform", [cosine_transform, inverse_cosine_transform])
def test_their_gradients_are_their_transposes(transform: Any) -> None:
    values = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transform, values)


class Squared(InputTransform):
    """Multiples of the squares, which are computed once; knows how often a gradient went back through them."""

    copies = 3

    def __init__(self) -> None:
        self.computed = self.back = 0

    def shared(self, images: torch.Tensor) -> torch.Tensor:
        self.computed += 1
        squares = images.square()
        if squares.requires_grad:
            squares.register_hook(self.count)
        return squares

    def count(self, gradient: torch.Tensor) -> None:
        del gradient
        self.back += 1

    def views(self, images: torch.Tensor, problem: Any) -> Iterator[torch.Tensor]:
        return self.views_of(self.shared(images), problem)

    def views_of(self, shared: torch.Tensor, problem: object) -> Iterator[torch.Tensor]:
        del problem
        for factor in range(1, 4):
            yield factor * shared


def test_what_the_views_of_the_first_transformation_share_is_differentiated_once() -> None:
    """Of a linear classifier, so that the logits' gradient with respect to a pixel p is 2 · p · w · mean(1, 2, 3);
    with another such transformation after it, which is given each view, 4 · p³ · w · mean(1, 4, 9) · mean(1, 2, 3)."""
    images = 0.3 + torch.rand(2, 1, 2, 2, dtype=torch.float64) / 2
    weight = torch.tensor([[0.5, -1.0, 2.0, 0.25], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False).double())
    model[1].weight.data = weight
    for inputs, slopes in (
        ([Squared()], 2 * images * 2),
        ([Squared(), Squared()], 4 * images**3 * 14 / 3 * 2),
    ):
        # In the L2 ball a first step goes along the gradient itself; it is small enough to leave no ball.
        attack = mr.attacks.create("i_fgsm", steps=1, step_size=0.01, loss="logit", inputs=inputs)
        moved = attack(model, images, torch.zeros(2, dtype=torch.int64), epsilon=0.02, norm="l2")
        expected = -slopes * weight[0].view(1, 1, 2, 2)
        expected *= 0.01 / expected.flatten(1).norm(dim=1)[:, None, None, None]
        torch.testing.assert_close(moved - images, expected, rtol=0, atol=1e-15)
        assert [(part.computed, part.back) for part in inputs] == [(1, 1), (3, 9)][: len(inputs)]
