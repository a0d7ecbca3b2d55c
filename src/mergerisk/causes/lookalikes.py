"""Images moved, invisibly, to look like others to a model's blocks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from mergerisk.attacks.attack import Pool, Problem
from mergerisk.attacks.budget import ball
from mergerisk.attacks.gradient_sign import MIFGSM
from mergerisk.causes.probe import Probe, Reads, encoder_of, features_of
from mergerisk.models.inside.blocks import transformer_blocks
from mergerisk.models.inside.hooks import layer_output
from mergerisk.seeds import derive_seed
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

    from mergerisk.attacks.gradient_attack import Oracle
    from mergerisk.causes.probe import Batch, Parts


@hyperparameters
class _Towards(MIFGSM):
    """Steps that bring a layer's output closer to that of the problem's pool, image by image.

    Attributes:
        layer: position of the block; None for the features.
    """

    layer: int | None = None

    def surrogate(self, problem: Problem) -> AbstractContextManager[Oracle]:
        def seen(images: torch.Tensor) -> torch.Tensor:
            if self.layer is None:
                return features_of(problem.classifier, images)
            block = list(transformer_blocks(encoder_of(problem.classifier, "the surrogate").backbone).values())
            return layer_output(problem.classifier, block[self.layer], images)

        with torch.no_grad():
            wanted = seen(problem.pool.images)

        def gain(images: torch.Tensor) -> torch.Tensor:
            return -(seen(images) - wanted).square().flatten(1).mean(dim=1).sum()

        return nullcontext(self.gradient_of(gain))


@hyperparameters
class Lookalikes(Probe):
    """``moved_0`` …, each N × C × H × W: the images, moved within an L∞ ball to give one block's output of another
    image, of another label, drawn per (seed, image) from all the images of the call; ``labels``, int64, N, of
    those others, −1 where there is none.

    Attributes:
        layers: so many blocks, evenly spaced, the last among them; 0 for the final features instead.
        radius: of the ball, in pixel units.
        steps: taken.
        step_size: of each, in pixel units.
        decay: momentum.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"labels", "gradients", "features"})
    depends: ClassVar[frozenset[Literal["epsilon", "norm", "seed"]]] = frozenset({"seed"})

    layers: int = 3
    radius: PositiveFloat = 0.07
    steps: PositiveInt = 10
    step_size: PositiveFloat = 0.007
    decay: float = 1.0

    @property
    def pictures_per_image(self) -> int:
        return max(1, self.layers)

    @property
    def gradients_per_image(self) -> int:
        return self.steps * max(1, self.layers)

    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        partners, labels = self.others(batch)
        problem = Problem(
            model,
            batch.images,
            batch.labels,
            None,
            ball("linf", batch.images, self.radius),
            batch.random("lookalikes"),
            Pool(partners, labels),
            derive_seed(batch.seed, "causes/lookalikes", batch.identities[0]),
        )
        moved = {}
        for place, layer in enumerate(self.positions(model)):
            attack = _Towards(steps=self.steps, step_size=self.step_size, decay=self.decay, layer=layer)
            moved[f"moved_{place}"] = attack.perturb(problem).adversarial
        return moved | {"labels": labels}

    def positions(self, model: nn.Module) -> list[int | None]:
        """The blocks whose output is matched."""
        if self.layers == 0:
            return [None]
        count = len(transformer_blocks(encoder_of(model, "the surrogate").backbone))
        wanted = min(self.layers, count)
        return [round((place + 1) * count / wanted) - 1 for place in range(wanted)]

    def others(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """For each image another one, of another label, and that label."""
        ahead = (batch.pool.labels != batch.labels[:, None]).cumsum(dim=1)
        count = ahead[:, -1]
        exact = batch.images.new_empty(0, dtype=torch.float64)
        rank = (batch.random("partners").uniform(1, like=exact)[:, 0] * count).floor().long()
        partner = (ahead > rank[:, None]).int().argmax(dim=1)
        return batch.pool.images[partner], torch.where(count > 0, batch.pool.labels[partner], -1)
