"""What targets say of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.attacks.watched import answered, heard
from mergerisk.errors import UserError
from mergerisk.memory import fitting, in_portions, live_bytes
from mergerisk.models.core.checks import precision_named
from mergerisk.models.inside.hooks import evaluating
from mergerisk.randomness import drawing
from mergerisk.tasks.images import check_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from mergerisk.memory import Measure
    from mergerisk.models.core.classifier import Head
    from mergerisk.models.core.encoder import Encoder
    from mergerisk.tasks.images import Images


def predict(
    classifier: nn.Module, images: Images, *, batch_size: int = 256, seed: int = 0, first: int = 0
) -> torch.Tensor:
    """Predicted labels, int64, N, on the CPU; :data:`mergerisk.attacks.REJECTED` where a classifier that is
    watched rejects an image.

    Args:
        classifier: pixels in [0, 1] → logits; used in evaluation mode, left as it was. Images go to the device of
            its first parameter or buffer.
        images: N × 3 × H × W in [0, 1].
        batch_size: images at a time, fewer where memory is scarce.
        seed: of a classifier that draws from PyTorch's global generator, which is left as it was.
        first: of images that are a part of more, how many stand before them. Where it is a multiple of the batch
            size, what comes is a part of what comes of all of them, to the byte.

    Raises:
        UserError: a pixel is out of range, a logit is NaN, or the weights are of another precision than the
            images.
    """
    tensors = (*classifier.parameters(), *classifier.buffers(), images[:0])
    modules = [classifier]

    def answers(batch: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        logits, alarm = heard(classifier, batch)
        return [logits], alarm

    return _predict(answers, modules, 1, images, tensors[0].device, batch_size, seed, first, live_bytes)[0]


def predict_variants(
    encoder: Encoder,
    head: Head,
    adapters: Mapping[str, nn.Module | None],
    images: Images,
    *,
    batch_size: int = 256,
    seed: int = 0,
    first: int = 0,
    image_bytes: Measure = live_bytes,
) -> torch.Tensor:
    """Predicted labels of several classifiers that share an encoder, which then runs once.

    Args:
        encoder: the shared encoder.
        head: the task's head.
        adapters: classifier name → what stands between encoder and head; None for nothing.
        images: N × 3 × H × W in [0, 1].
        batch_size: images at a time, fewer where memory is scarce.
        seed: of an encoder that draws from PyTorch's global generator, which is left as it was.
        first: of images that are a part of more, how many stand before them; see :func:`predict`.
        image_bytes: measures what the forward pass of one image takes; who asks often remembers it.

    Returns:
        int64, classifiers × N, on the CPU.

    Raises:
        UserError: a pixel is out of range, a logit is NaN, or the weights are of another precision than the
            images.
    """

    def answers(batch: torch.Tensor) -> tuple[list[torch.Tensor], None]:
        features = encoder(batch)
        return [head(features if adapter is None else adapter(features)) for adapter in adapters.values()], None

    modules = [encoder, *(adapter for adapter in adapters.values() if adapter is not None)]
    device = encoder.mean.device
    return _predict(answers, modules, len(adapters), images, device, batch_size, seed, first, image_bytes)


def _predict(
    answers: Callable[[torch.Tensor], tuple[list[torch.Tensor], torch.Tensor | None]],
    modules: Sequence[nn.Module],
    classifiers: int,
    images: Images,
    device: torch.device,
    batch_size: int,
    seed: int,
    first: int,
    image_bytes: Measure,
) -> torch.Tensor:
    """Classifiers × N from what several classifiers, made of the modules, say of a batch, and the alarm that it
    raises, if one is watched."""

    def portion(start: int, stop: int) -> torch.Tensor:
        batch = images[start:stop]
        check_pixels(batch)
        with (
            drawing(seed, "predict", first + start, device=device),
            precision_named(modules[0], images[:0], "the classifier"),
        ):
            said, alarm = answers(batch.to(device, non_blocking=True))
            stacked = torch.stack(said)
        if bool(stacked.isnan().any()):
            raise UserError("a target's logits hold NaN; check its weights")
        return answered(stacked, alarm).cpu()

    # Not inference mode: what is predicted may be attacked next.
    with torch.inference_mode(False), torch.no_grad(), evaluating(*modules):
        nothing = torch.empty(classifiers, 0, dtype=torch.int64)
        most = batch_size
        if min(len(images), batch_size) > 1:
            most = min(batch_size, fitting(image_bytes(lambda: portion(0, 1)), device))
        return torch.cat([nothing, *in_portions(portion, len(images), most)], dim=1)
