"""Whether the loss rises between an ingredient, or the base, and the merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveInt

from mergerisk.attacks.losses import closeness
from mergerisk.causes.attacked import Attacked, AttackName
from mergerisk.causes.cause import Cause
from mergerisk.causes.given import Need, look
from mergerisk.causes.probe import Reads, asked, encoder_of
from mergerisk.causes.result import Column, Measured, Per, stated
from mergerisk.errors import UserError
from mergerisk.memory import in_portions
from mergerisk.merging.batch_norm import batch_norm_layers, reestimate_batch_norm
from mergerisk.merging.material import Calibration
from mergerisk.models.core.checks import check_same_architecture
from mergerisk.models.core.classifier import Classifier
from mergerisk.models.inside.hooks import frozen
from mergerisk.randomness import drawing
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.causes.given import Given
    from mergerisk.merging.material import Tensors
    from mergerisk.models.core.encoder import State


@hyperparameters
class LossBarrier(Cause):
    """max over a of L(θ(a)) − [(1 − a) L(θ(0)) + a L(θ(1))] on the line θ(a) = (1 − a) θ + a θm, for θ = θt (row
    ``ingredient``) and θ = θ0 (row ``base``); L is the mean cross-entropy of the images under the target's head
    (Frankle et al. 2020, arXiv 1912.05671). Of clean images, and, which is ours, of images attacked on the
    ingredient, the same ones all along the line.

    In nats, in [0, ∞): 0 where the loss is convex along the line. Running statistics of BatchNorm are estimated
    anew on the images at every place, the ends among them.

    Attributes:
        points: places on the line, its ends among them, at equal distances.
        attack: that the ingredient is attacked with, within the call's budget.
        steps: it takes; None for its own number.
    """

    name: ClassVar[str] = "loss_barrier"
    per: ClassVar[Per] = "pair"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images", "labels", "base"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("loss_barrier", "nats", 0.0, None, "other basins, so attacks on the ingredient transfer less"),
        Column("adversarial_loss_barrier", "nats", 0.0, None, "attacks on the ingredient lose hold on the way"),
    )

    points: Annotated[int, Field(ge=3)] = 11
    attack: AttackName = "i_fgsm"
    steps: PositiveInt | None = None

    @property
    def surrogate_reads(self) -> frozenset[Reads]:
        return frozenset({"logits", "gradients", "features"})

    @property
    def target_reads(self) -> frozenset[Reads]:
        return frozenset({"logits", "features"})

    @property
    def made_by(self) -> tuple[str, ...]:
        return self.attacked.made_by

    @property
    def attacked(self) -> Attacked:
        """What is asked of the ingredient."""
        return Attacked(attack=self.attack, steps=self.steps)

    def passes_per_image(self, experts: int) -> Mapping[str, int]:  # noqa: ARG002
        lines, kinds = 2, 2  # from ingredient and base, of clean and attacked images
        return {"forward": lines * kinds * self.points, "gradient": self.attacked.gradients_per_image}

    def check_pair(self, surrogate: Any, target: Any) -> None:
        if target.adapter is not None:
            raise UserError(
                f"{self.name}: the target has an adapter behind its weights; give the merge without it"
            )
        merged = target.encoder.state()
        check_same_architecture(merged, surrogate.encoder.state(), f"{self.name}: the surrogate")

    def answer(self, given: Given) -> Measured:
        reads = self.surrogate_reads
        most = min(given.batch_size, look(given.surrogate, reads, given, self.name, "the surrogate")[0])
        look(given.target, self.target_reads, given, self.name, "the target")
        surrogate, target = given.surrogate, given.target
        assert isinstance(surrogate, Classifier)
        assert isinstance(target, Classifier)
        self.check_pair(surrogate, target)
        merged = target.encoder.state()
        starts = {
            "ingredient": surrogate.encoder.state(),
            "base": encoder_of(given.base, f"{self.name}: the base").state(),
        }
        check_same_architecture(merged, starts["base"], f"{self.name}: the base")

        def crafted(start: int, stop: int) -> torch.Tensor:
            probe = self.attacked
            found = asked(surrogate, (probe,), given.batch(start, stop))[probe]["adversarial"]
            return found.to(given.images)

        with frozen(surrogate, "the surrogate"):
            adversarial = torch.cat(in_portions(crafted, len(given.images), most))
        images = {"loss_barrier": given.images, "adversarial_loss_barrier": adversarial}
        places = torch.linspace(0.0, 1.0, self.points, dtype=torch.float64).tolist()
        found: dict[str, list[float]] = {name: [] for name in images}
        for state in starts.values():
            on_path = [self._model(target, state, merged, place, given) for place in places]
            for name, pictures in images.items():
                losses = torch.tensor(
                    [_loss(model, pictures, given, most) for model in on_path], dtype=torch.float64
                )
                found[name].append(_barrier(losses))
        columns = {name: stated(values) for name, values in found.items()}
        return Measured(self.name, "pair", tuple(starts), columns)

    def _model(self, target: Classifier, start: Tensors, end: Tensors, place: float, given: Given) -> Classifier:
        """The target with weights of one place on the line."""
        encoder = target.encoder.with_state(_between(start, end, place))
        if batch_norm_layers(encoder.backbone):
            calibration = {"": Calibration(given.images, target.head)}
            statistics = reestimate_batch_norm(encoder, [""], calibration, given.seed)
            encoder = encoder.with_state(encoder.state() | statistics)
        return Classifier(encoder, target.head).eval()


def _between(start: Tensors, end: Tensors, place: float) -> State:
    """(1 − a) θ + a θ' of every floating-point tensor; others as in θ'."""
    return {
        name: torch.lerp(start[name].double(), tensor.double(), place).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in end.items()
    }


def _barrier(losses: torch.Tensor) -> float:
    """The most by which losses at equally spaced places of a line, from end to end, exceed the mix of the ends."""
    mix = torch.linspace(0.0, 1.0, len(losses), dtype=torch.float64)
    return float((losses.double() - torch.lerp(losses[0].double(), losses[-1].double(), mix)).clamp(min=0).max())


def _loss(model: Classifier, images: torch.Tensor, given: Given, most: int) -> float:
    """The mean cross-entropy, in nats."""

    def portion(start: int, stop: int) -> float:
        with torch.no_grad(), drawing(given.seed, "causes", given.identities[start], device=images.device):
            logits = model(images[start:stop]).double()
            return float(-closeness("cross_entropy", logits, given.labels[start:stop]).sum())

    return sum(in_portions(portion, len(images), most)) / len(images)
