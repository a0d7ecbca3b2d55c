"""The residual blocks of a transformer, and how to reach what they put out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable


def transformer_blocks(backbone: nn.Module) -> dict[str, nn.Module]:
    """The blocks by name, in the order they run in: the longest list of modules of one class.

    Raises:
        UserError: there is none.
    """
    lists = [
        (name, module)
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len({type(block) for block in module}) == 1
    ]
    if not lists:
        raise UserError(f"{type(backbone).__name__} has no list of blocks; the method is for transformers")
    name, found = max(lists, key=lambda item: len(item[1]))
    return {f"{name}.{position}": block for position, block in enumerate(found)}


def change_blocks(
    features: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    backbone: nn.Module,
    pixels: torch.Tensor,
    change: Callable[[int, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """``features(backbone, pixels)``, with what every block puts out replaced on the way.

    Args:
        features: see :class:`mergerisk.models.Encoder`.
        backbone: a transformer.
        pixels: normalised.
        change: position of the block, its tokens (N × tokens × width) → tokens of the same shape.

    Raises:
        UserError: a block puts out something else than tokens.
    """

    def hook(position: int) -> Callable[..., object]:
        def replace(block: nn.Module, arguments: object, output: object) -> object:  # noqa: ARG001
            first = output[0] if isinstance(output, tuple) else output
            if not isinstance(first, torch.Tensor) or first.ndim != 3:
                raise UserError(f"{type(block).__name__} puts out no tokens; the method is for transformers")
            changed = change(position, first)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return replace

    blocks = transformer_blocks(backbone).values()
    handles = [block.register_forward_hook(hook(position)) for position, block in enumerate(blocks)]
    try:
        return features(backbone, pixels)
    finally:
        for handle in handles:
            handle.remove()
