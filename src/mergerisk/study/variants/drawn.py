"""Several models of which each picture is answered by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.variants.ensemble import EnsembleVariant
from mergerisk.study.variants.variant import SurrogateVariant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from mergerisk.models import State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.keyed import Input
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Images


@dataclass(frozen=True, kw_only=True)
class DrawnVariant(SurrogateVariant):
    """Models one of which is drawn for each picture; see :func:`mergerisk.defenses.one_for_each`.

    Attributes:
        backbone: of every member.
        members: model → the state of its encoder; None for the pretrained one.
        seed: the secret that draws.
    """

    kind: ClassVar[str] = "drawn"

    backbone: Backbone
    members: Mapping[str, Input[State] | None]
    seed: int

    def answer(self, bench: Workbench, images: Images, first: int = 0) -> torch.Tensor:
        """Classes that the drawn models name, 1 × N."""
        from mergerisk.transfer import predict

        return predict(self.classifier(bench), images, batch_size=bench.compute.batch_size, first=first)[None]

    def classifier(self, bench: Workbench) -> nn.Module:
        """The members under one head, from pixels in [0, 1] to the logits of the one that is drawn."""
        from mergerisk.defenses import one_for_each

        encoders = [bench.model(self.backbone, member).encoder for member in self.members.values()]
        return one_for_each(encoders, bench.head(self.head), self.seed)

    def known(self, seed: int, of: SurrogateVariant | None = None) -> SurrogateVariant:
        """All of them at once, since nobody else knows which one is drawn; see the base class."""
        if of is not None:
            return super().known(seed, of)
        return EnsembleVariant(
            columns=self.columns,
            task=self.task,
            head=self.head,
            backbone=self.backbone,
            members=self.members,
            combine="loss",
        )
