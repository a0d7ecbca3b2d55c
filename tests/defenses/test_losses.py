"""What training defenses minimise, against sums in plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from mergerisk.defenses import losses
from mergerisk.errors import UserError
from tests.naive.models import smooth_problem

N, K = 5, 4
LABELS = [0, 3, 1, 2, 3]


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(N, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(row: list[float]) -> list[float]:
    return [math.exp(z) / sum(math.exp(other) for other in row) for z in row]


def entropy(said: torch.Tensor) -> float:
    return sum(-math.log(probabilities(row)[y]) for row, y in zip(said.tolist(), LABELS, strict=True)) / N


def test_trades() -> None:
    clean, adversarial = logits(0), logits(1)
    apart = 0.0
    for one, other in zip(clean.tolist(), adversarial.tolist(), strict=True):
        pairs = zip(probabilities(one), probabilities(other), strict=True)
        apart += sum(p * math.log(p / q) for p, q in pairs) / N
    found = float(losses.trades(clean, adversarial, torch.tensor(LABELS), beta=2.5))
    assert found == pytest.approx(entropy(clean) + 2.5 * apart, rel=1e-12)
    assert float(losses.divergence(clean, clean).abs().max()) == 0


def test_fare() -> None:
    one, other = logits(0).requires_grad_(), logits(1).requires_grad_()
    pairs = zip(one.tolist(), other.tolist(), strict=True)
    expected = sum((a - b) ** 2 for row, second in pairs for a, b in zip(row, second, strict=True)) / N
    found = losses.fare(one, other)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()
    assert one.grad is not None
    assert other.grad is None


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_pubdef(weights: list[float] | None) -> None:
    clean, first, second = (logits(seed) for seed in range(3))
    a, b = (0.5, 0.5) if weights is None else (0.25, 0.75)
    expected = (entropy(clean) + a * entropy(first) + b * entropy(second)) / 2
    found = float(losses.pubdef(clean, [first, second], torch.tensor(LABELS), weights))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [-1.0, 2.0]])
def test_pubdefs_weights_are_checked(weights: list[float]) -> None:
    with pytest.raises(UserError, match="weight"):
        losses.pubdef(logits(0), [logits(1), logits(2)], torch.tensor(LABELS), weights)
    with pytest.raises(UserError, match="0 models"):
        losses.pubdef(logits(0), [], torch.tensor(LABELS))


def test_gradient_penalty() -> None:
    """Each pixel's slope by central differences: an error of third order in 1e-5, and rounding of 2⁻⁵³ / 1e-5."""
    classifier, images, labels = smooth_problem(2, 1, 3, 4)

    def lost(points: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(classifier(points), labels, reduction="none")

    size = torch.zeros(2, dtype=torch.float64)
    for place in range(12):
        step = torch.zeros(1, 12, dtype=torch.float64)
        step[0, place] = 1e-5
        slope = (lost(images + step.view(1, 1, 3, 4)) - lost(images - step.view(1, 1, 3, 4))) / 2e-5
        size += slope.square()
    found = losses.gradient_penalty(classifier, images, labels, coefficient=0.7)
    assert found.item() == pytest.approx(float((lost(images) + 0.7 * size).mean()), rel=1e-8)


def test_the_penalty_is_differentiated_by_the_weights() -> None:
    classifier, images, labels = smooth_problem(2, 1, 3, 4)
    classifier.last.requires_grad_()
    losses.gradient_penalty(classifier, images, labels).backward()
    assert bool(classifier.last.grad.any())
