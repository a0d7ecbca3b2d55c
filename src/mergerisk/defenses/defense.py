"""What every defense is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


class Defense(ABC):
    """Hyper-parameters of a defense, which stands around a classifier.

    Subclasses are frozen dataclasses of hyper-parameters; see :func:`mergerisk.validation.hyperparameters`.
    """

    @abstractmethod
    def defend(self, classifier: nn.Module) -> nn.Module:
        """The hardened classifier.

        Args:
            classifier: from pixels in [0, 1], N × 3 × H × W, to logits, N × classes; it is not changed.

        Returns:
            A module from the same pixels to logits of the same classes.
        """

    @property
    def passes(self) -> int:
        """How often an image passes through the classifier for one defended answer."""
        return 1

    def adaptive_passes(self, draws: int = 10) -> int:  # noqa: ARG002
        """How often it does so for one answer of :meth:`adaptive`."""
        return self.passes

    def adaptive(self, classifier: nn.Module, *, draws: int = 10, seed: int = 0) -> nn.Module:  # noqa: ARG002
        """What an attacker crafts on who knows the defense and has the classifier: the defended classifier with a
        gradient that says where its answers go.

        By default the defended classifier itself. Defenses that hide their gradient or draw at random give more.

        Args:
            classifier: as for :meth:`defend`: the attacker's own, which need not be the one that is attacked.
            draws: over how many of the defense's random draws the attacker averages, where it has any.
            seed: of the attacker's draws, which are never the defender's.

        Returns:
            A module from the same pixels to logits of the same classes, for any attack to craft on.
        """
        return self.defend(classifier)
