"""Classifiers that reject what they take for an attack, and what attackers who know of it go by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import nn

from mergerisk.attacks.rejected import REJECTED

if TYPE_CHECKING:
    from collections.abc import Callable


class Watched(nn.Module, ABC):
    """A classifier beside which something watches. Its output is the classifier's own logits, as if nothing did;
    what it answers, alarms counted, says :func:`answers`.

    An attack on it pays for the alarm that it raises, and has succeeded only where it raises none.
    """

    @abstractmethod
    def heard(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, N × classes, and the alarm, N: 0 where an image passes, and else the larger the farther it is
        from passing, in the unit of a cross-entropy, with a gradient to the images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × C × H × W in [0, 1] → logits, N × classes."""
        return self.heard(images)[0]


def heard(
    classifier: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a classifier says of images, and the alarm that they raise; None of a classifier that none watches."""
    return classifier.heard(images) if isinstance(classifier, Watched) else (classifier(images), None)


def answers(classifier: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """int64, N: the class that a classifier names for each image, or :data:`REJECTED`."""
    return answered(*heard(classifier, images))


def answered(logits: torch.Tensor, alarm: torch.Tensor | None) -> torch.Tensor:
    """The same, of what was heard."""
    named = logits.argmax(dim=-1)
    return named if alarm is None else torch.where(alarm > 0, REJECTED, named)
