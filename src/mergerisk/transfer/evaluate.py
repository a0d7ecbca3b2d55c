"""What targets say of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError
from mergerisk.memory import in_portions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from mergerisk.models.classifier import Head
    from mergerisk.models.encoder import Encoder
    from mergerisk.tasks.images import Images


def predict(classifier: nn.Module, images: Images, *, batch_size: int = 256) -> torch.Tensor:
    """Predicted labels, int64, N, on the CPU.

    Args:
        classifier: pixels in [0, 1] → logits; images go to the device of its first parameter or buffer.
        images: N × 3 × H × W in [0, 1].
        batch_size: images at a time, halved where memory runs out.

    Raises:
        UserError: a logit is NaN.
    """
    tensors = (*classifier.parameters(), *classifier.buffers(), images[:0])
    return _predict(lambda batch: [classifier(batch)], 1, images, tensors[0].device, batch_size)[0]


def predict_variants(
    encoder: Encoder,
    head: Head,
    adapters: Mapping[str, nn.Module | None],
    images: Images,
    *,
    batch_size: int = 256,
) -> torch.Tensor:
    """Predicted labels of several classifiers that share an encoder, which then runs once.

    Args:
        encoder: the shared encoder.
        head: the task's head.
        adapters: classifier name → what stands between encoder and head; None for nothing.
        images: N × 3 × H × W in [0, 1].
        batch_size: images at a time, halved where memory runs out.

    Returns:
        int64, classifiers × N, on the CPU.

    Raises:
        UserError: a logit is NaN.
    """

    def answers(batch: torch.Tensor) -> Sequence[torch.Tensor]:
        features = encoder(batch)
        return [head(features if adapter is None else adapter(features)) for adapter in adapters.values()]

    return _predict(answers, len(adapters), images, encoder.mean.device, batch_size)


def _predict(
    answers: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    classifiers: int,
    images: Images,
    device: torch.device,
    batch_size: int,
) -> torch.Tensor:
    """Classifiers × N from what several classifiers say of a batch."""

    def portion(start: int, stop: int) -> torch.Tensor:
        stacked = torch.stack(list(answers(images[start:stop].to(device, non_blocking=True))))
        if bool(stacked.isnan().any()):
            raise UserError("a target's logits hold NaN; check its weights")
        return stacked.argmax(dim=2).cpu()

    with torch.no_grad():  # not inference mode: what is predicted may be attacked next
        nothing = torch.empty(classifiers, 0, dtype=torch.int64)
        return torch.cat([nothing, *in_portions(portion, len(images), batch_size)], dim=1)
