"""SurgeryV2: per-task adapters after every block."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from mergerisk.merging.method import Correction
from mergerisk.merging.surgery import SurgeryAdapter, batches
from mergerisk.models.inside.blocks import change_blocks, transformer_blocks
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mergerisk.merging.material import Merged, Tensors
    from mergerisk.models.core.encoder import Encoder, State
    from mergerisk.tasks.images import Images

_BATCH = 64
"""Images per forward pass where nothing is learnt."""


class BlockAdapters(nn.Module):
    """Features of a backbone with an adapter after every block, on all tokens, and one on the features.

    Args:
        features: of the encoder that is corrected.
        adapters: one per block, then that of the features.
    """

    def __init__(
        self, features: Callable[[nn.Module, torch.Tensor], torch.Tensor], adapters: Sequence[SurgeryAdapter]
    ) -> None:
        super().__init__()
        self.features = features
        self.adapters = nn.ModuleList(adapters)

    def forward(self, backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels → features, N × width."""
        return self.trace(backbone, pixels, lambda position, tokens: None)  # noqa: ARG005

    def trace(
        self, backbone: nn.Module, pixels: torch.Tensor, see: Callable[[int, torch.Tensor], None]
    ) -> torch.Tensor:
        """The same, and ``see`` is shown what every adapter puts out, by position."""

        def change(position: int, tokens: torch.Tensor) -> torch.Tensor:
            corrected: torch.Tensor = self.adapters[position](tokens)
            see(position, corrected)
            return corrected

        features = change_blocks(self.features, backbone, pixels, change)
        return change(len(self.adapters) - 1, features)


@hyperparameters
class SurgeryV2(Correction):
    """Deep representation surgery (Yang et al. 2024, arXiv 2410.14389, section 4), stacked on any merge of
    transformers.

    :class:`Surgery`'s adapter follows every block, on all tokens, and the final features. All of a task's adapters
    are learnt together, by the sum of the mean absolute distances of the blocks' token means, and of the features,
    to the expert's. Batches, steps and optimiser are those of :class:`Surgery`, here as in the authors' code
    (EnnengYang/SurgeryV2).

    Attributes:
        rank: r of every adapter; 16 in the paper (4 for ViT-L/14). Corrections start at zero.
        steps: optimiser steps per task, each on one batch.
        batch_size: images of a batch.
        learning_rate: of Adam, betas (0.9, 0.999).
    """

    name: ClassVar[str] = "surgery_v2"
    changes_encoder: ClassVar[bool] = True

    rank: PositiveInt = 16
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-3

    def cost(self, pools: Sequence[int]) -> Mapping[str, int]:
        # The expert's features once; the merge's are computed anew in every step.
        return {"forward": sum(pools), "training": self.steps * self.batch_size * len(pools)}

    def fit_task(self, encoder: Encoder, expert: Encoder, images: Images, draws: torch.Generator) -> State:
        device = encoder.mean.device
        wanted = _block_means(expert, images)
        adapters = [SurgeryAdapter.fresh(target.shape[1], self.rank, draws).to(device) for target in wanted]
        stack = BlockAdapters(encoder.features, adapters)
        optimizer = torch.optim.Adam(stack.adapters.parameters(), lr=self.learning_rate)
        for chosen in islice(batches(len(images), self.batch_size, draws), self.steps):
            distances: list[torch.Tensor] = []

            def see(position: int, output: torch.Tensor, chosen: torch.Tensor = chosen) -> None:
                target = wanted[position][chosen].to(device)
                distances.append(F.l1_loss(_means(output), target))  # noqa: B023  # called within this step

            stack.trace(encoder.backbone, encoder.prepare(images[chosen].to(device)), see)
            optimizer.zero_grad()
            torch.stack(distances).sum().backward()
            optimizer.step()
        return {
            f"{position}/{part}": tensor.detach().cpu()
            for position, adapter in enumerate(adapters)
            for part, tensor in adapter.named_parameters()
        }

    def apply(self, merged: Merged, parts: Tensors) -> Merged:
        positions: dict[str, int] = {}
        for name in parts:
            task, position, _ = name.rsplit("/", 2)
            positions[task] = max(positions.get(task, 0), int(position))
        per_task = {}
        for task, last in positions.items():
            adapters = [
                SurgeryAdapter(parts[f"{task}/{position}/down"], parts[f"{task}/{position}/up"])
                for position in range(last + 1)
            ]
            encoder = merged.encoder_for(task)
            corrected = encoder.with_features(BlockAdapters(encoder.features, adapters))
            per_task[task] = corrected.requires_grad_(False)
        return replace(merged, shared=None, per_task=per_task, parts=dict(parts))


def _means(output: torch.Tensor) -> torch.Tensor:
    """Tokens (N × tokens × width) → their mean, N × width; features as they are."""
    return output.mean(dim=1) if output.ndim == 3 else output


def _block_means(encoder: Encoder, images: Images) -> list[torch.Tensor]:
    """Token means after every block, then the features, each N × width, on the CPU."""
    collected: list[list[torch.Tensor]] = [[] for _ in range(len(transformer_blocks(encoder.backbone)) + 1)]

    def see(position: int, tokens: torch.Tensor) -> torch.Tensor:
        collected[position].append(_means(tokens).cpu())
        return tokens

    with torch.no_grad():
        for batch in images.split(_BATCH):
            pixels = encoder.prepare(batch.to(encoder.mean.device))
            see(len(collected) - 1, change_blocks(encoder.features, encoder.backbone, pixels, see))
    return [torch.cat(parts) for parts in collected]
