"""Plain and corrected models: targets that share an encoder, and so a forward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from mergerisk.study.variants.variant import SurrogateVariant

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mergerisk.merging.material import Tensors
    from mergerisk.models import Encoder, State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.keyed import Input
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Images


@dataclass(frozen=True, kw_only=True)
class EncoderVariant(SurrogateVariant):
    """Targets that share an encoder.

    Attributes:
        backbone: what it is an encoder of.
        encoder: its state, an expert's or a merge's; None for the pretrained one.
        inside: a correction that is put inside the encoder, if there is one.
        adapters: the corrections behind it, one per column; None for the plain encoder.
    """

    kind: ClassVar[str] = "encoder"

    backbone: Backbone
    encoder: Input[State] | None = None
    inside: Input[Tensors] | None = None
    adapters: tuple[Input[Tensors] | None, ...] = (None,)

    def alone(self, label: str) -> Self:
        """The encoder with one target's adapter."""
        return replace(self, columns={label: 0}, adapters=(self.adapters[self.columns[label]],))

    def answer(self, bench: Workbench, images: Images, first: int = 0) -> torch.Tensor:
        """Classes that the targets name, columns × N; they share the encoder's forward pass."""
        from mergerisk.transfer import predict_variants

        adapters = {str(column): adapter for column, adapter in enumerate(self._adapters(bench))}
        backbone = (self.backbone.name, self.backbone.image_size, self.backbone.preprocessing)
        return predict_variants(
            self._encoder(bench),
            bench.head(self.head),
            adapters,
            images,
            batch_size=bench.compute.batch_size,
            first=first,
            image_bytes=bench.image_bytes((backbone, self.encoder, self.inside, self.adapters, images.shape[1:])),
        )

    def classifier(self, bench: Workbench) -> nn.Module:
        """Encoder, head and the one adapter, from pixels in [0, 1] to logits."""
        from mergerisk.models import Classifier

        (adapter,) = self._adapters(bench)
        return Classifier(self._encoder(bench), bench.head(self.head), adapter)

    def _encoder(self, bench: Workbench) -> Encoder:
        """The encoder for the task: methods may have one for each."""
        merged = bench.model(self.backbone, self.encoder, self.inside)
        return merged.encoder_for(self.task) if merged.per_task else merged.encoder

    def _adapters(self, bench: Workbench) -> list[nn.Module | None]:
        """Per label's correction its adapter for the task, in order; None for none."""
        merged = bench.model(self.backbone, self.encoder, self.inside)
        return [
            None if made is None else bench.corrected(merged, made).adapters[self.task].to(bench.compute.device)
            for made in self.adapters
        ]
