"""A model behind a defense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.variants.variant import SurrogateVariant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Images


@dataclass(frozen=True, kw_only=True)
class DefendedVariant(SurrogateVariant):
    """A model behind a defense; see :class:`mergerisk.defenses.Defense`.

    Attributes:
        defense: its name.
        parameters: its hyper-parameters, defaults filled in.
        of: what is defended, one model.
        plugins: name and version of the installed package that adds the defense.
    """

    kind: ClassVar[str] = "defended"

    defense: str
    parameters: Mapping[str, Any]
    of: SurrogateVariant
    plugins: tuple[str, ...] = ()

    @property
    def passes(self) -> int:
        """As many as of what is defended."""
        return self.of.passes

    def answer(self, bench: Workbench, images: Images) -> torch.Tensor:
        """Classes that it names, 1 × N."""
        from mergerisk.transfer import predict

        return predict(self.classifier(bench), images, batch_size=bench.compute.batch_size)[None]

    def classifier(self, bench: Workbench) -> nn.Module:
        """The defended model, from pixels in [0, 1] to logits."""
        from mergerisk import defenses

        return defenses.create(self.defense, **self.parameters).defend(self.of.classifier(bench)).eval()
