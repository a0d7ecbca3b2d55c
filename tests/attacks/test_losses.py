"""Losses against their closed forms, also where a softmax is saturated."""

from __future__ import annotations

import pytest
import torch

from mergerisk.attacks.losses import closeness

CLASSES = torch.tensor([0, 2])


def gradient(loss: str, logits: torch.Tensor) -> torch.Tensor:
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(closeness(loss, leaf, CLASSES).sum(), leaf)[0]  # type: ignore[arg-type]


def saturated(gap: float, dtype: torch.dtype) -> torch.Tensor:
    logits = torch.tensor([[0.0, -1.0, 0.5], [1.0, 0.3, 0.0]], dtype=dtype)
    return logits + gap * torch.nn.functional.one_hot(CLASSES, 3)


@pytest.mark.parametrize("gap", [-50.0, 0.0, 3.0, 17.0, 36.0, 60.0, 300.0])
def test_float64_cross_entropy_keeps_its_gradient(gap: float) -> None:
    """d/dz of −log(1 + Σ exp(z_j − z_y)): the true class's part is minus the sum of the others', never zero."""
    logits = saturated(gap, torch.float64)
    odds = (logits - logits.gather(1, CLASSES[:, None])).exp().scatter(1, CLASSES[:, None], 0.0)
    expected = -odds / (1 + odds.sum(dim=1, keepdim=True))
    expected = expected.scatter(1, CLASSES[:, None], -expected.sum(dim=1, keepdim=True))
    found = gradient("cross_entropy", logits)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert bool((found != 0).all())


def test_float32_cross_entropy_loses_the_true_class() -> None:
    """What everyone's loss does, and why the others are offered."""
    found = gradient("cross_entropy", saturated(20.0, torch.float32)).gather(1, CLASSES[:, None])
    assert not bool(found.any())


def test_margin_and_logit_by_hand() -> None:
    logits = torch.tensor([[2.0, 5.0, 4.0], [1.0, 0.0, 7.0]])
    assert closeness("margin", logits, CLASSES).tolist() == [-3.0, 6.0]
    assert closeness("logit", logits, CLASSES).tolist() == [2.0, 7.0]
    assert gradient("margin", logits).tolist() == [[1.0, -1.0, 0.0], [-1.0, 0.0, 1.0]]
