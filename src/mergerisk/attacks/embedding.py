"""Attacks on what an encoder makes of an image, for which no label and no head is needed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from mergerisk.attacks.ensemble import members_of
from mergerisk.attacks.gradient_sign import PGD
from mergerisk.errors import UserError
from mergerisk.models.core.encoder import Encoder
from mergerisk.models.inside.blocks import find_layer
from mergerisk.models.inside.hooks import layer_output
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.gradient_attack import Oracle


@hyperparameters
class Feature(PGD):
    """From a random start, away from what the encoder φ makes of the clean image: ‖φ(x + δ) − φ(x)‖ grows, or the
    cosine between the two falls. Neither label nor head is asked for, and nothing after the encoder is run.

    A proposal of our own for attackers who hold the public base and nothing of the task (``surrogates:
    [pretrained]``); the gain is what Schlarmann et al. 2024 (arXiv 2402.12336) train against. What is computed is
    ‖φ(x + δ) − φ(x)‖² / ‖φ(x)‖², whose gradient points the same way, and whose mean over an ensemble's encoders
    does not go by the scale of their features.

    Attributes:
        distance: ``euclidean``, or ``cosine``.
        layer: dotted name of a module of the classifier whose output stands for φ; None for the encoder.
    """

    distance: Literal["euclidean", "cosine"] = "euclidean"
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.targeted:
            raise ValueError("targeted cannot be chosen: the attack knows no labels")
        if self.loss != "cross_entropy":
            raise ValueError("loss cannot be chosen: the attack follows features, not the logits")

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:
        for member, layer in self._places(classifier):
            layer_output(member, layer, image)

    def surrogate(self, problem: Problem) -> AbstractContextManager[Oracle]:
        places = self._places(problem.classifier)
        distance = _turn if self.distance == "cosine" else _shift

        def features(images: torch.Tensor) -> list[torch.Tensor]:
            return [layer_output(member, layer, images).to(images).flatten(1) for member, layer in places]

        with self.computing(problem.images):
            clean = features(problem.images)

        def gain(images: torch.Tensor) -> torch.Tensor:
            moved = zip(features(images), clean, strict=True)
            return torch.stack([distance(new, old).sum() for new, old in moved]).mean()

        return nullcontext(self.gradient_of(gain))

    def _places(self, classifier: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
        """The classifiers to run, and in each the module whose output counts."""
        if self.layer is not None:
            return [(classifier, find_layer(classifier, self.layer))]
        members = members_of(classifier)
        found: list[tuple[nn.Module, nn.Module]] = [
            (member, part) for member in members for part in member.modules() if isinstance(part, Encoder)
        ]
        if {member for member, _ in found} != set(members):
            raise UserError(
                f"{type(classifier).__name__} holds no encoder of this package's to take features from; name a "
                "layer, as model.named_modules() does"
            )
        return found


def _shift(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """N: squared distances, over the squared lengths of the old."""
    size = old.square().sum(dim=1)
    return (new - old).square().sum(dim=1) / size.where(size > 0, 1.0)


def _turn(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """N: one less their cosines."""
    return 1 - F.cosine_similarity(new, old)
