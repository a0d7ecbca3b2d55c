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
