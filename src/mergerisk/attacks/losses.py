"""What an attack wants of the logits: per image, larger where the attack is nearer to its goal."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

Loss = Literal["cross_entropy", "margin", "logit"]
"""``cross_entropy``: as everyone's; in float32 its gradient vanishes where the softmax saturates.
``margin``: the logit of the class minus the largest other (Carlini and Wagner 2017, arXiv 1608.04644), without a
floor; never saturates. ``logit``: the logit of the class alone (Zhao et al. 2021, arXiv 2012.11207)."""


def closeness(loss: Loss, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """How strongly logits (N × K) speak for the given classes (int64, N): N values.

    A targeted attack raises it for its target class, an untargeted one lowers it for the true class.
    """
    if loss == "cross_entropy":
        return -F.cross_entropy(logits, classes, reduction="none")
    own = logits.gather(1, classes[:, None])[:, 0]
    if loss == "logit":
        return own
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return own - others.amax(dim=1)
