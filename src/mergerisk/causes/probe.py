"""What is asked of one model on its own: its gradients, features, curvature on a task's images.

A probe's answers are rows per image and know nothing of other models, so that they are computed once per model and
compared with those of as many others as there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from mergerisk.errors import UserError
from mergerisk.models.core.classifier import Classifier
from mergerisk.models.core.encoder import Encoder
from mergerisk.randomness import ImageRandom

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.attacks.attack import Pool
    from mergerisk.attacks.budget import Norm

Reads = Literal["labels", "logits", "gradients", "features", "blocks", "weights"]
"""What of a model, or of the call (``labels``), is read."""

Parts = Mapping[str, torch.Tensor]
"""A probe's answers by name, each N × …, on the CPU."""


@dataclass(frozen=True)
class Batch:
    """Images that are looked at together.

    Attributes:
        images: N × C × H × W in [0, 1].
        labels: int64, N, the true ones; zeros where nothing reads them.
        identities: of the images, which randomness belongs to.
        epsilon: the budget, in pixel units.
        norm: what it bounds.
        seed: of everything random.
        pool: all the images of the call.
    """

    images: torch.Tensor
    labels: torch.Tensor
    identities: tuple[int, ...]
    epsilon: float
    norm: Norm
    seed: int
    pool: Pool

    def random(self, stream: str) -> ImageRandom:
        """Random numbers that belong to (seed, stream, image)."""
        return ImageRandom(self.seed, f"causes/{stream}", self.identities)


class Probe(ABC):
    """A question to one model; implementations are frozen dataclasses, so that equal ones are asked once."""

    reads: ClassVar[frozenset[Reads]]
    depends: ClassVar[frozenset[Literal["epsilon", "norm", "seed"]]] = frozenset()
    """What of the call the answers depend on, besides images and labels."""

    @property
    def pictures_per_image(self) -> int:
        """Of the answers how many are as large as the image; what else there is, is small beside one."""
        return 0

    @property
    def made_by(self) -> tuple[str, ...]:
        """Name and version of the installed packages whose code it calls besides its own: an attack's, say."""
        return ()

    @property
    def gradients_per_image(self) -> int:
        """Backward passes to the pixels; a Hessian-vector product counts as two."""
        return 0

    @abstractmethod
    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        """The answers.

        Args:
            model: in evaluation mode, its parameters frozen.
            batch: the images.
        """


Known = Mapping[Probe, Parts]
"""What is known of a model, by what was asked."""


def features_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a head reads: features, N × width, after an adapter where the model has one."""
    if isinstance(model, Classifier):
        features: torch.Tensor = model.encoder(images)
        if model.adapter is not None:
            features = model.adapter(features)
        return features
    assert isinstance(model, Encoder)
    found: torch.Tensor = model(images)
    return found


def encoder_of(model: object, who: str) -> Encoder:
    """The encoder of a classifier, or the encoder itself.

    Raises:
        UserError: there is none; ``who`` says whose it would be.
    """
    if isinstance(model, Classifier):
        return model.encoder
    if isinstance(model, Encoder):
        return model
    raise UserError(
        f"{who} is a {type(model).__name__}, whose features cannot be told from its logits; give a "
        "mergerisk.Classifier(encoder, head) or an encoder"
    )


def asked(model: nn.Module, probes: tuple[Probe, ...], batch: Batch) -> Known:
    """The answers of a model to some probes, each asked once."""
    return {
        probe: {name: rows.detach().cpu() for name, rows in probe.measure(model, batch).items()}
        for probe in dict.fromkeys(probes)
    }


def predictions(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Predicted labels, int64, N."""
    with torch.no_grad():
        said: torch.Tensor = model(images)
        return said.argmax(dim=1)
