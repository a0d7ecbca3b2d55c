"""Images attacked on a surrogate, and what it says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, PositiveInt

from mergerisk.attacks.catalogue import ATTACKS, create
from mergerisk.causes.probe import Probe, Reads, features_of
from mergerisk.models.core.classifier import Classifier
from mergerisk.registry import plugins
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.attacks.attack import Attack
    from mergerisk.causes.probe import Batch, Parts


def _known(name: str) -> str:
    ATTACKS.check(name)
    return name


AttackName = Annotated[str, AfterValidator(_known)]
"""One of ``mergerisk list attacks``."""


@hyperparameters
class Attacked(Probe):
    """``adversarial``, N × C × H × W, crafted within ε; ``predicted``, int64, N, what the model says of them; of
    a classifier with an encoder, ``features`` of them too.

    Attributes:
        attack: its name; other hyper-parameters are its defaults. One that mixes images of a call mixes those of a
            batch.
        steps: it takes; None for the attack's own.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"labels", "logits", "gradients"})
    depends: ClassVar[frozenset[Literal["epsilon", "norm", "seed"]]] = frozenset({"epsilon", "norm", "seed"})

    attack: AttackName = "i_fgsm"
    steps: PositiveInt | None = None

    @property
    def pictures_per_image(self) -> int:
        return 1

    @property
    def made_by(self) -> tuple[str, ...]:
        return plugins(ATTACKS.check(self.attack))

    @property
    def gradients_per_image(self) -> int:
        return self.made().gradients_per_image

    def made(self) -> Attack:
        """The attack.

        Raises:
            UserError: it takes no steps, but they are given.
        """
        given: dict[str, Any] = {} if self.steps is None else {"steps": self.steps}
        return create(self.attack, **given)

    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        adversarial = self.made()(
            model,
            batch.images,
            batch.labels,
            epsilon=batch.epsilon,
            norm=batch.norm,
            seed=batch.seed,
            indices=batch.identities,
        )
        with torch.no_grad():
            found = {"adversarial": adversarial, "predicted": model(adversarial).argmax(dim=1)}
            if isinstance(model, Classifier):
                found["features"] = features_of(model, adversarial)
        return found
