"""What a float32 softmax leaves of an attack's input gradient, as the true logit moves ahead of the others.

    python benchmarks/zero_gradients.py

A linear float32 classifier of ten classes whose true logit is ahead of all others by a gap, on ten images. For
each loss: the share of pixels where the gradient's sign is the right one, that of log(1 + Σ exp(other − true))
wholly in float64 (of the margin, for the margin loss), and whether the gradient is exactly zero.
"""

from __future__ import annotations

import torch
from torch import nn

from mergerisk.attacks.losses import closeness

GAPS = (5, 10, 15, 17, 20, 30, 60, 90, 120)


class Ahead(nn.Module):
    """Small random logits, the first of which is ahead by ``gap``."""

    def __init__(self, gap: float) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 10)
        self.gap = gap

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = 1e-3 * self.linear(images.flatten(1))
        return logits + self.gap * nn.functional.one_hot(torch.tensor(0), 10)


def closeness_of(logits: torch.Tensor, loss: str) -> torch.Tensor:
    """A loss as an attack computes it, or ``exact``: cross-entropy without cancellation, written otherwise."""
    true = torch.zeros(len(logits), dtype=torch.int64)
    if loss == "exact":
        return -torch.log1p(torch.exp(logits[:, 1:] - logits[:, :1]).sum(dim=1))
    if loss == "margin":
        return closeness("margin", logits, true)
    return closeness("cross_entropy", logits.double() if loss == "float64_logits" else logits, true)


def gradient(classifier: nn.Module, images: torch.Tensor, loss: str) -> torch.Tensor:
    """Of a loss with respect to the images."""
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(closeness_of(classifier(leaf), loss).sum(), leaf)[0]


def main() -> None:
    """Print a table."""
    torch.manual_seed(0)
    images = torch.rand(10, 3, 8, 8)
    losses = ("cross_entropy", "float64_logits", "margin")
    print(f"| gap | {' | '.join(losses)} |")
    for gap in GAPS:
        classifier = Ahead(gap)
        cells = []
        for loss in losses:
            found = gradient(classifier.float(), images, loss)
            exact = gradient(classifier.double(), images.double(), "margin" if loss == "margin" else "exact")
            right = float((found.sign() == exact.sign()).float().mean())
            cells.append("zero" if not bool(found.any()) else f"{right:.1%}")
        print(f"| {gap} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
