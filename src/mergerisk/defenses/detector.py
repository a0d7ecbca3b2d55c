"""Images on which a merge and a public model disagree are taken for attacks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from mergerisk.attacks.watched import Watched
from mergerisk.errors import UserError
from mergerisk.memory import in_portions
from mergerisk.models.inside.hooks import evaluating
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.tasks.images import Images


@hyperparameters
class Detector:
    """An image is rejected if the merge and a model beside it, an ingredient say, disagree about it more than they
    do about nearly all clean images: if ½ Σ (p − q)(log p − log q), half of Jeffreys' divergence of their
    probabilities, exceeds a threshold. Own.

    The threshold is set on calibration images, so that a clean image of the same kind is rejected with probability
    ``false_alarms`` at most (split conformal prediction, Vovk et al. 2005). A rejected adversarial image fools
    nobody; a rejected clean one is lost accuracy.

    Attributes:
        false_alarms: the share of clean images that may be rejected.
    """

    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @property
    def fewest(self) -> int:
        """Calibration images below which no threshold can be promised."""
        return math.ceil(1 / self.false_alarms - 1e-9) - 1

    def threshold(
        self, classifier: nn.Module, beside: nn.Module, images: Images, *, batch_size: int = 128
    ) -> float:
        """The disagreement above which an image is rejected.

        Args:
            classifier: what is defended: pixels in [0, 1] → logits.
            beside: what it is compared with, of the same classes.
            images: N × C × H × W in [0, 1], clean ones that are never attacked; no label is read.
            batch_size: images at a time.

        Raises:
            UserError: there are fewer than :attr:`fewest`.
        """
        if len(images) < self.fewest:
            raise UserError(
                f"a detector with {self.false_alarms:g} false alarms needs {self.fewest} calibration images, got "
                f"{len(images)}; give more, or allow more false alarms"
            )

        def portion(start: int, stop: int) -> torch.Tensor:
            batch = images[start:stop]
            given = next(iter(classifier.parameters()), batch).device
            found = [model(batch.to(given)) for model in (classifier, beside)]
            return disagreement(*found).double().cpu()

        with torch.inference_mode(False), torch.no_grad(), evaluating(classifier, beside):
            scores = torch.cat(in_portions(portion, len(images), batch_size)).sort().values
        place = math.ceil((len(scores) + 1) * (1 - self.false_alarms) - 1e-9)
        return float(scores[place - 1])

    def defend(self, classifier: nn.Module, beside: nn.Module, threshold: float) -> Watched:
        """The classifier, watched; see :func:`mergerisk.attacks.answers` for what it answers. To craft on it is to
        know the detector: attacks look for images that both models take for the same wrong class.

        Args:
            classifier: what is defended, or what an attacker holds instead.
            beside: what it is compared with.
            threshold: see :meth:`threshold`.
        """
        return _Compared(classifier, beside, threshold)


def disagreement(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """N: half of Jeffreys' divergence of the softmax of two models' logits, N × classes, in nats; 0 where they are
    alike."""
    p, q = one.log_softmax(dim=1), other.log_softmax(dim=1)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=1) / 2


class _Compared(Watched):
    """A classifier that is compared with another one."""

    def __init__(self, classifier: nn.Module, beside: nn.Module, threshold: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.beside = beside
        self.threshold = threshold

    def heard(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.classifier(images)
        return logits, (disagreement(logits, self.beside(images)) - self.threshold).clamp(min=0)
