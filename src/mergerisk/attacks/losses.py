"""What an attack wants of the logits: per image, larger where the attack is nearer to its goal."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from mergerisk.errors import UserError

Loss = Literal["cross_entropy", "margin", "logit"]
"""``cross_entropy``: as everyone's; in float32 the gradient loses the class's own part where softmax saturates.
``margin``: the logit of the class minus the largest other (Carlini and Wagner 2017, arXiv 1608.04644), without a
floor; never saturates. ``logit``: the logit of the class alone (Zhao et al. 2021, arXiv 2012.11207)."""


_TINY = 1e-12
"""Added to a difference of logits before something is divided by it, as everywhere."""


def difference_of_logits_ratio(
    logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None
) -> torch.Tensor:
    """N values, larger where an attack is nearer to its goal (Croce and Hein 2020, arXiv 2003.01690): with
    z₁ ≥ z₂ … the sorted logits, away from the label y −(z_y − largest other) / (z₁ − z₃), at most 1; towards a
    target t −(z_y − z_t) / (z₁ − (z₃ + z₄)/2).

    Args:
        logits: N × K.
        labels: int64, N, the true ones.
        targets: int64, N, the labels to reach.

    Raises:
        UserError: fewer than three classes, or than four for targets.
    """
    needed = 3 if targets is None else 4
    if logits.shape[1] < needed:
        raise UserError(
            f"the difference of logits ratio needs {needed} classes, the classifier has {logits.shape[1]}; "
            "take the cross-entropy (apgd_ce)"
        )
    ordered = logits.sort(dim=1, descending=True).values
    own = logits.gather(1, labels[:, None])[:, 0]
    if targets is None:
        other = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
        return (other - own) / (ordered[:, 0] - ordered[:, 2] + _TINY)
    aim = logits.gather(1, targets[:, None])[:, 0]
    return (aim - own) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + _TINY)


def closeness(loss: Loss, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """How strongly logits (N × K) speak for the given classes (int64, N): N values.

    A targeted attack raises it for its target class, an untargeted one lowers it for the true class. The
    cross-entropy of float64 logits is computed without cancellation, as log(1 + Σ exp(other − own)).
    """
    if loss == "cross_entropy" and (logits.dtype != torch.float64 or logits.shape[1] == 1):
        return -F.cross_entropy(logits, classes, reduction="none")
    own = logits.gather(1, classes[:, None])
    if loss == "logit":
        return own[:, 0]
    others = logits.scatter(1, classes[:, None], -torch.inf) - own
    if loss == "margin":
        return -others.amax(dim=1)
    return -F.softplus(others.logsumexp(dim=1), threshold=40)
