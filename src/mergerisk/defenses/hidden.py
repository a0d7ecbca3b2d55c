"""What hides how a model was merged: numbers that only its owner knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import torch
from pydantic import Field, NonNegativeInt, model_validator
from torch import nn

from mergerisk.attacks.ensemble import Ensemble
from mergerisk.defenses.content import content_random
from mergerisk.errors import UserError
from mergerisk.merging.batch_norm import reestimate_batch_norm
from mergerisk.merging.interventions import on_path
from mergerisk.models.core.classifier import Classifier
from mergerisk.randomness import generator
from mergerisk.seeds import derive_seed
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.merging import Calibration, MergingMethod
    from mergerisk.models import Encoder, Head

Scale = Annotated[float, Field(ge=0, le=2)]


@dataclass(frozen=True)
class Drawn:
    """How one merge is made.

    Attributes:
        at: λ of θ0 + λ (θm − θ0); 1 is the merge as it is.
        seed: of a merging method that draws.
    """

    at: float
    seed: int


@hyperparameters
class HidingDefense(ABC):
    """A merge, or several that answer together, made with numbers that attackers do not know: λ of
    θ0 + λ (θm − θ0), and the draws of a method that draws, as DARE does. Own.

    It is worth no more than the secret: attackers who know of it merge public ingredients themselves, and guess.

    Attributes:
        low: the smallest λ.
        high: the largest; every λ between is as likely.
        seed: the secret.
    """

    one_for_each: ClassVar[bool] = False
    """Whether each picture is answered by one of the merges, rather than by all of them together."""

    low: Scale = 0.7
    high: Scale = 1.3
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low: must be at most high, {self.high:g}, got {self.low:g}")
        return self

    @property
    @abstractmethod
    def count(self) -> int:
        """Merges that answer together."""

    def drawn(self) -> tuple[Drawn, ...]:
        """How each merge is made."""
        shares = torch.rand(self.count, generator=generator(self.seed, "hidden"), dtype=torch.float64).tolist()
        return tuple(
            Drawn(self.low + share * (self.high - self.low), derive_seed(self.seed, "hidden", number) % 2**32)
            for number, share in enumerate(shares)
        )

    def guessed(self, *names: str | int) -> Self:
        """The same with another secret, told by names: a study's seed, or an attacker."""
        return replace(self, seed=derive_seed(self.seed, "secret", *names) % 2**32)

    def merge(
        self,
        method: MergingMethod,
        base: Encoder,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None = None,
        seed: int = 0,
    ) -> tuple[Encoder, ...]:
        """The merges.

        Args:
            method: how ingredients are merged: into one encoder of the base's architecture.
            base: the pretrained encoder.
            experts: task → expert.
            calibration: task → unlabelled images and head, of methods that read some, and for BatchNorm.
            seed: of a method that reads images; one that draws besides takes the secret's.

        Raises:
            UserError: the method gives each task an encoder of its own, or changes the architecture; or what
                merging raises.
        """
        if method.encoder_per_task or method.changes_architecture:
            raise UserError(f"{type(self).__name__} takes merges into one encoder of the base's architecture")
        found = []
        for one in self.drawn():
            drawn = one.seed if method.uses_seed else seed
            merged = method.merge(base, experts, calibration=calibration, seed=drawn).encoder
            state = on_path(base.state(), merged.state(), one.at)
            if calibration is not None:
                state |= reestimate_batch_norm(base.with_state(state), calibration, calibration, drawn)
            found.append(base.with_state(state))
        return tuple(found)


def together(encoders: Iterable[Encoder], head: Head) -> nn.Module:
    """Encoders that answer as one, by their mean probabilities: pixels → logits."""
    return Ensemble([Classifier(encoder, head) for encoder in encoders], "probabilities").eval()


def one_for_each(encoders: Iterable[Encoder], head: Head, seed: int) -> nn.Module:
    """Encoders of which each picture is answered by one, drawn by ``seed`` and what the picture shows: pixels →
    logits."""
    return _Drawn([Classifier(encoder, head) for encoder in encoders], seed).eval()


class _Drawn(nn.Module):
    """One classifier for each picture."""

    def __init__(self, classifiers: Iterable[nn.Module], seed: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(classifiers)
        self.seed = seed

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × C × H × W in [0, 1] → logits, N × classes."""
        if not len(images):
            empty: torch.Tensor = self.members[0](images)
            return empty
        exact = images.new_empty(0, dtype=torch.float64, device="cpu")
        shares = content_random(self.seed, "hidden", images).uniform(1, like=exact)[:, 0]
        chosen = (shares * len(self.members)).long().to(images.device)
        rows = [(chosen == number).nonzero()[:, 0] for number in range(len(self.members))]
        said = [member(images[own]) for member, own in zip(self.members, rows, strict=True) if len(own)]
        return torch.cat(said)[torch.cat(rows).argsort()]
