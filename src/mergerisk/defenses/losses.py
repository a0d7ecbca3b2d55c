"""What training defenses minimise, from what models say of clean and of adversarial images: means over images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


def trades(
    clean: torch.Tensor, adversarial: torch.Tensor, labels: torch.Tensor, beta: float = 6.0
) -> torch.Tensor:
    """CE(f(x)) + β KL(f(x) ‖ f(x')) (Zhang et al. 2019, arXiv 1901.08573, equation 5); the x' that maximises the
    KL is the caller's to find. The gradient goes through both, as in the authors' code.

    Args:
        clean: N × K, logits.
        adversarial: N × K.
        labels: int64, N.
        beta: weight of the second term.
    """
    return F.cross_entropy(clean, labels) + beta * divergence(clean, adversarial).mean()


def divergence(clean: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
    """N: KL(f(x) ‖ f(x')) of the classes' probabilities."""
    said = clean.log_softmax(dim=1)
    return (said.exp() * (said - adversarial.log_softmax(dim=1))).sum(dim=1)


def fare(adversarial: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """‖φ(x') − φ₀(x)‖² (Schlarmann et al. 2024, arXiv 2402.12336, equation 3): summed over the features, which are
    not normalised; no labels.

    Args:
        adversarial: N × D, features of the encoder that is trained, on adversarial images.
        original: N × D, of the encoder as it was, on clean ones; no gradient goes to it.
    """
    return (adversarial - original.detach()).square().sum(dim=1).mean()


def pubdef(
    clean: torch.Tensor,
    adversarial: Sequence[torch.Tensor],
    labels: torch.Tensor,
    weights: Sequence[float] | None = None,
) -> torch.Tensor:
    """Half of CE(f(x)) and half of Σ w_k CE(f(x + δ_k)), δ_k crafted beforehand on public models (Sitawarin et al.
    2024, arXiv 2310.17645).

    Args:
        clean: N × K, logits.
        adversarial: for every public model N × K.
        labels: int64, N.
        weights: of the public models; equal by default. They are divided by their sum.

    Raises:
        UserError: no public model, weights of another number, or none above zero.
    """
    shares = [1.0] * len(adversarial) if weights is None else list(weights)
    if not adversarial or len(shares) != len(adversarial) or min(shares) < 0 or sum(shares) == 0:
        raise UserError(
            f"pubdef: needs a weight of 0 or more for each of its public models, some above 0, got {len(shares)} "
            f"weights for {len(adversarial)} models"
        )
    lost = torch.stack([F.cross_entropy(logits, labels) for logits in adversarial])
    share = torch.tensor(shares, dtype=lost.dtype, device=lost.device) / sum(shares)
    return (F.cross_entropy(clean, labels) + (share * lost).sum()) / 2


def distillation(
    teacher: torch.Tensor, clean: torch.Tensor, adversarial: torch.Tensor, share: float = 5 / 6
) -> torch.Tensor:
    """(1 − w) KL(t(x) ‖ f(x)) + w KL(t(x) ‖ f(x')) (Zi et al. 2021, arXiv 2108.07969, equation 6).

    Args:
        teacher: N × K, logits of the model that is imitated, on clean images; no gradient goes to it.
        clean: N × K, of the model that is trained.
        adversarial: N × K, of the same on adversarial images.
        share: w.
    """
    said = teacher.detach()
    return (1 - share) * divergence(said, clean).mean() + share * divergence(said, adversarial).mean()


def gradient_penalty(
    classifier: nn.Module, images: torch.Tensor, labels: torch.Tensor, coefficient: float = 0.1
) -> torch.Tensor:
    """CE(f(x)) + λ ‖∇ₓ CE(f(x))‖² (Ross and Doshi-Velez 2018, arXiv 1711.09404, equation 3), the gradient of each
    image's own loss; it can be differentiated by the weights.

    Args:
        classifier: pixels → logits.
        images: N × C × H × W.
        labels: int64, N.
        coefficient: λ.
    """
    leaf = images.detach().requires_grad_()
    lost = F.cross_entropy(classifier(leaf), labels, reduction="none")
    (gradient,) = torch.autograd.grad(lost.sum(), leaf, create_graph=True)
    return lost.mean() + coefficient * gradient.square().sum(dim=(1, 2, 3)).mean()


def input_gradients(
    classifier: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, differentiable: bool = False
) -> torch.Tensor:
    """N × C × H × W: the gradient of each image's own cross-entropy.

    Args:
        classifier: pixels → logits.
        images: N × C × H × W.
        labels: int64, N.
        differentiable: by the weights.
    """
    leaf = images.detach().requires_grad_()
    lost = F.cross_entropy(classifier(leaf), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(lost, leaf, create_graph=differentiable)
    return gradient


def decorrelation(
    own: torch.Tensor, others: Sequence[torch.Tensor], coefficient: float = 2.0, smoothness: float = 2.0
) -> torch.Tensor:
    """c · mean |cos(g, g_k)| + λ ‖g‖²: the mean over images, and over public models k (Kariyappa and Qureshi 2019,
    arXiv 1901.09981; Yang et al. 2021, arXiv 2104.00671, equations 3 and 4). The cosine with a zero gradient is 0.

    Args:
        own: N × C × H × W, input gradients of the model that is trained.
        others: the same of every public model.
        coefficient: c.
        smoothness: λ.

    Raises:
        UserError: no public model.
    """
    if not others:
        raise UserError("decorrelate: needs one public model at least")
    mine = own.flatten(1)
    alike = [F.cosine_similarity(mine, other.flatten(1), dim=1, eps=_TINY).abs().mean() for other in others]
    return coefficient * torch.stack(alike).mean() + smoothness * mine.square().sum(dim=1).mean()


_TINY = 1e-30
"""Gradients shorter than this are none."""
