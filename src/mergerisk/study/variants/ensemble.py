"""Several models as one surrogate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.variants.variant import SurrogateVariant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from mergerisk.attacks import EnsembleAlgorithm
    from mergerisk.attacks.ensemble import Combine
    from mergerisk.models import State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.keyed import Input
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Images


@dataclass(frozen=True, kw_only=True)
class EnsembleVariant(SurrogateVariant):
    """Several models that answer as one; see :class:`mergerisk.attacks.Ensemble`.

    Attributes:
        backbone: of every member.
        members: model → the state of its encoder; None for the pretrained one.
        combine: what is averaged.
    """

    kind: ClassVar[str] = "ensemble"

    backbone: Backbone
    members: Mapping[str, Input[State] | None]
    combine: Combine

    @property
    def passes(self) -> int:
        """One per member."""
        return len(self.members)

    def answer(self, bench: Workbench, images: Images, first: int = 0) -> torch.Tensor:
        """Classes that the ensemble names, 1 × N."""
        from mergerisk.transfer import predict

        return predict(self.classifier(bench), images, batch_size=bench.compute.batch_size, first=first)[None]

    @property
    def followed(self) -> EnsembleAlgorithm | None:
        """How attacks follow the members, where not along the gradient of what they say together."""
        return None

    def classifier(self, bench: Workbench) -> nn.Module:
        """The members under one head, from pixels in [0, 1] to combined logits."""
        from mergerisk.attacks import Ensemble
        from mergerisk.models import Classifier

        head = bench.head(self.head)
        encoders = [bench.model(self.backbone, member).encoder for member in self.members.values()]
        return Ensemble([Classifier(encoder, head) for encoder in encoders], self.combine, self.followed)


@dataclass(frozen=True, kw_only=True)
class FollowedEnsembleVariant(EnsembleVariant):
    """Several models that attacks follow by an algorithm; see
    :class:`mergerisk.attacks.EnsembleAlgorithm`.

    Attributes:
        algorithm: its name.
        parameters: its hyper-parameters, defaults filled in.
        plugins: name and version of the installed package that adds it.
    """

    kind: ClassVar[str] = "followed_ensemble"

    algorithm: str
    parameters: Mapping[str, Any]
    plugins: tuple[str, ...] = ()

    @property
    def followed(self) -> EnsembleAlgorithm:
        """The algorithm itself."""
        from mergerisk.attacks import create_algorithm

        return create_algorithm(self.algorithm, **self.parameters)

    @property
    def gradient_passes(self) -> int:
        """What the algorithm asks of the members for one gradient."""
        return self.followed.passes(len(self.members))
