"""A model beside which a detector watches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mergerisk.study.variants.variant import SurrogateVariant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from mergerisk.defenses import Detector
    from mergerisk.study.keyed import Input
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Images


@dataclass(frozen=True, kw_only=True)
class DetectedVariant(SurrogateVariant):
    """A model that rejects what it takes for attacks; see :class:`mergerisk.defenses.Detector`. It is crafted on
    as it is: attacks pay for the alarms that they raise.

    Attributes:
        detector: its name.
        parameters: its hyper-parameters, defaults filled in.
        of: what is defended.
        beside: what it is compared with.
        threshold: where alarms begin, of the defended model.
        plugins: name and version of the installed package that adds the detector.
    """

    kind: ClassVar[str] = "detected"

    detector: str
    parameters: Mapping[str, Any]
    of: SurrogateVariant
    beside: SurrogateVariant
    threshold: Input[torch.Tensor]
    plugins: tuple[str, ...] = ()

    @property
    def passes(self) -> int:
        """Of both models."""
        return self.of.passes + self.beside.passes

    def answer(self, bench: Workbench, images: Images, first: int = 0) -> torch.Tensor:
        """Classes that it names, or that it rejects an image, 1 × N."""
        from mergerisk.transfer import predict

        return predict(self.classifier(bench), images, batch_size=bench.compute.batch_size, first=first)[None]

    def classifier(self, bench: Workbench) -> nn.Module:
        """The model and what watches it, from pixels in [0, 1] to logits."""
        from mergerisk import defenses

        made: Detector = defenses.DEFENSES.create(self.detector, self.parameters)
        threshold = float(bench.arrays(self.threshold.key)["threshold"])
        return made.defend(self.of.classifier(bench), self.beside.classifier(bench), threshold).eval()

    def known(self, seed: int, of: SurrogateVariant | None = None) -> Self:
        """The same, around what the attacker holds; see the base class."""
        return replace(self, of=self.of.known(seed, of))
