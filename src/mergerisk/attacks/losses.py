"""What an attack wants of the logits: per image, larger where the attack is nearer to its goal."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

Loss = Literal["cross_entropy", "margin", "logit"]
"""``cross_entropy``: as everyone's; in float32 the gradient loses the class's own part where softmax saturates.
``margin``: the logit of the class minus the largest other (Carlini and Wagner 2017, arXiv 1608.04644), without a
floor; never saturates. ``logit``: the logit of the class alone (Zhao et al. 2021, arXiv 2012.11207)."""


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
