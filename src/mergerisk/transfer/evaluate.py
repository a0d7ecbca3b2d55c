"""What targets say of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from mergerisk.models.classifier import Classifier, Head
    from mergerisk.models.encoder import Encoder


def predict(classifier: Classifier, images: torch.Tensor, *, batch_size: int = 256) -> torch.Tensor:
    """Predicted labels, int64, N, on the CPU, for images N × 3 × H × W in [0, 1].

    Raises:
        UserError: a logit is NaN.
    """
    variants = {"": classifier.adapter}
    return predict_variants(classifier.encoder, classifier.head, variants, images, batch_size=batch_size)[0]


def predict_variants(
    encoder: Encoder,
    head: Head,
    adapters: Mapping[str, nn.Module | None],
    images: torch.Tensor,
    *,
    batch_size: int = 256,
) -> torch.Tensor:
    """Predicted labels of several classifiers that share an encoder, which then runs once.

    Args:
        encoder: the shared encoder.
        head: the task's head.
        adapters: classifier name → what stands between encoder and head; None for nothing.
        images: N × 3 × H × W in [0, 1].
        batch_size: images at a time.

    Returns:
        int64, classifiers × N, on the CPU.

    Raises:
        UserError: a logit is NaN.
    """
    device = encoder.mean.device
    predictions = []
    with torch.inference_mode():
        for batch in images.split(batch_size):
            features = encoder(batch.to(device))
            logits = [head(features if adapter is None else adapter(features)) for adapter in adapters.values()]
            stacked = torch.stack(logits)
            if bool(stacked.isnan().any()):
                raise UserError("a target's logits hold NaN; check its weights")
            predictions.append(stacked.argmax(dim=2).cpu())
    return torch.cat(predictions, dim=1) if predictions else torch.empty(len(adapters), 0, dtype=torch.int64)
