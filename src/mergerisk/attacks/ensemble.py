"""Several classifiers as one surrogate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import nn

from mergerisk.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mergerisk.attacks.ensemble_gradients import EnsembleAlgorithm

Combine = Literal["logits", "probabilities", "loss"]


class Ensemble(nn.Module):
    """Classifiers that answer together, for any attack to craft on (Liu et al. 2017, arXiv 1611.02770; Dong et al.
    2018, arXiv 1710.06081, section 3.3, which compares the three ways).

    Args:
        classifiers: each from pixels in [0, 1] to logits of the same classes.
        combine: what is averaged: ``logits``; ``probabilities`` (the output is the logarithm of their mean); or
            ``loss`` (attacks average the classifiers' losses; the output is the mean log-softmax, which names the
            same class as the mean logits).
        algorithm: how attacks follow them, where not along the gradient of what they say together.

    Raises:
        UserError: no classifier, an unknown way to combine, or, once it is run, differing numbers of classes.
    """

    def __init__(
        self,
        classifiers: Iterable[nn.Module],
        combine: Combine = "logits",
        algorithm: EnsembleAlgorithm | None = None,
    ) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.members = nn.ModuleList(classifiers)
        self.combine = combine
        if not len(self.members):
            raise UserError("an ensemble needs at least one classifier")
        if algorithm is not None and len(self.members) < 2:
            raise UserError("an ensemble's algorithm needs at least two classifiers")
        if combine not in get_args(Combine):
            raise UserError(
                f"unknown way to combine classifiers {combine!r}{did_you_mean(combine, get_args(Combine))}"
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × C × H × W in [0, 1] → logits, N × classes."""
        answers: list[torch.Tensor] = [member(images) for member in self.members]
        classes = [answer.shape[-1] for answer in answers]
        if len(set(classes)) > 1:
            raise UserError(f"classifiers of one ensemble must have the same classes; these have {classes}")
        logits = torch.stack(answers)
        if self.combine == "logits":
            return logits.mean(dim=0)
        if self.combine == "loss":
            return logits.log_softmax(dim=-1).mean(dim=0)
        # Of logarithms, so that probabilities too small for a float keep their gradient.
        return torch.logsumexp(logits.log_softmax(dim=-1), dim=0) - math.log(len(answers))


def members_of(classifier: nn.Module) -> list[nn.Module]:
    """The classifiers that an ensemble is made of, or the classifier itself."""
    return list(classifier.members) if isinstance(classifier, Ensemble) else [classifier]
