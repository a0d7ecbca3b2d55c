"""Features of a model, at its end and after every block."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.causes.probe import Probe, Reads, encoder_of, features_of
from mergerisk.errors import UserError
from mergerisk.models.inside.blocks import transformer_blocks
from mergerisk.models.inside.hooks import first_tensor, hooked
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from mergerisk.causes.probe import Batch, Parts
    from mergerisk.models.inside.hooks import Hook

FINAL = "features"
"""What the features at a model's end are called."""


@hyperparameters
class Features(Probe):
    """``features``, N × width: what the head reads, not normalised. Each of the blocks besides: ``block_0`` …,
    N × width, the mean over tokens or over places of an image."""

    reads: ClassVar[frozenset[Reads]] = frozenset({"features"})

    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        with torch.no_grad():
            return {FINAL: features_of(model, batch.images)}


@hyperparameters
class BlockFeatures(Probe):
    """``block_0`` …, each N × width: what every block puts out, the mean over its tokens or places; and
    ``features`` as :class:`Features` has them."""

    reads: ClassVar[frozenset[Reads]] = frozenset({"features", "blocks"})

    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        with torch.no_grad():
            return _through_blocks(model, batch.images, _pooled)


def _through_blocks(
    model: nn.Module, images: torch.Tensor, see: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What ``see`` makes of every block's output, and the features."""
    blocks = list(transformer_blocks(encoder_of(model, "the model").backbone).values())
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Hook:
        def hook(block: nn.Module, arguments: tuple[object, ...], output: object) -> None:  # noqa: ARG001
            tensor = first_tensor(output)
            if tensor is None or tensor.ndim < 2 or len(tensor) != len(images):
                raise UserError(
                    f"{type(block).__name__} does not put out one tensor per image; blocks=False compares the "
                    "final features alone"
                )
            found[name] = see(tensor)

        return hook

    with hooked((block, keep(f"block_{position}")) for position, block in enumerate(blocks)):
        features = features_of(model, images)
    return {**found, FINAL: features}


def _pooled(output: torch.Tensor) -> torch.Tensor:
    """N × width: the mean over tokens (N × tokens × width) or places (N × width × H × W); others as they are."""
    if output.ndim == 3:
        return output.mean(dim=1)
    return output.flatten(2).mean(dim=2) if output.ndim > 3 else output


def check_comparable(
    surrogate: nn.Module, target: nn.Module, cause: str, *, blocks: bool, widths: bool = False
) -> None:
    """See that blocks of two models can be compared one by one and, with ``widths``, their features number by
    number.

    Raises:
        UserError: they cannot.
    """
    encoders = encoder_of(surrogate, "the surrogate"), encoder_of(target, "the target")
    if widths and encoders[0].width != encoders[1].width:
        raise UserError(
            f"{cause}: the surrogate has {encoders[0].width} features, the target {encoders[1].width}; only "
            "models of one width can be compared"
        )
    if blocks:
        counts = [len(transformer_blocks(encoder.backbone)) for encoder in encoders]
        if counts[0] != counts[1]:
            raise UserError(
                f"{cause}: the surrogate has {counts[0]} blocks, the target {counts[1]}; blocks=False compares "
                "the final features alone"
            )
