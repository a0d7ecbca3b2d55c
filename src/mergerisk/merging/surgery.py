"""Surgery: per-task adapters that pull a merged encoder's features towards the experts'."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from mergerisk.merging.method import Correction
from mergerisk.models.inside.features import extract_features
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.merging.material import Merged, Tensors
    from mergerisk.models.core.encoder import Encoder, State
    from mergerisk.tasks.images import Images


class SurgeryAdapter(nn.Module):
    """z − U·ReLU(D·z), without biases.

    Args:
        down: D, rank × width.
        up: U, width × rank.
    """

    def __init__(self, down: torch.Tensor, up: torch.Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)

    @classmethod
    def fresh(cls, width: int, rank: int, draws: torch.Generator) -> SurgeryAdapter:
        """An adapter that changes nothing yet: D drawn as PyTorch draws a linear layer's, U zero."""
        down = torch.empty(rank, width)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=draws)
        return cls(down, torch.zeros(width, rank))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """… × width → … × width."""
        # As in Head: one adapter serves encoders on any device.
        hidden = F.relu(F.linear(features, self.down.to(features)))
        return features - F.linear(hidden, self.up.to(features))


def batches(count: int, size: int, draws: torch.Generator) -> Iterator[torch.Tensor]:
    """Positions of ``size`` of ``count`` images at a time, without end: the first two batches of one shuffling
    after another, as the authors' code takes them. If there are few images, the second is smaller or left out."""
    while True:
        yield from torch.randperm(count, generator=draws).split(size)[:2]


@hyperparameters
class Surgery(Correction):
    """Representation surgery (Yang et al. 2024, arXiv 2402.02705, equations 4 and 5), stacked on any merge.

    Features are not normalised before the adapter, as in the paper; FusionBench normalises them. The mean absolute
    distance to the expert's features is minimised.

    Defaults are those of the authors' code (EnnengYang/RepresentationSurgery): 500 iterations, each of which
    shuffles a task's images and takes two batches of 16, one optimiser step on each. There one Adam holds the
    adapters of all tasks; here every task has its own, which with PyTorch 2 is the same. With PyTorch 1, adapters
    also move while other tasks take their steps, on gradients of zero: about as if the learning rate were √T times
    larger.

    Attributes:
        rank: r of D (r × width) and U (width × r); U starts at zero, so that training starts at the merge. 16 in
            the paper; SurgeryV2's code compares with 304, which makes as many parameters as its own rank 16.
        steps: optimiser steps per task, each on one batch.
        batch_size: images of a batch.
        learning_rate: of Adam, betas (0.9, 0.999).
    """

    name: ClassVar[str] = "surgery"

    rank: PositiveInt = 16
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-3

    def fit_task(self, encoder: Encoder, expert: Encoder, images: Images, draws: torch.Generator) -> State:
        # Both encoders are frozen, so their features are computed once, not once a step.
        pairs = torch.stack([extract_features(encoder, images), extract_features(expert, images)], dim=1)
        adapter = SurgeryAdapter.fresh(pairs.shape[2], self.rank, draws)
        optimizer = torch.optim.Adam(adapter.parameters(), lr=self.learning_rate)
        for chosen in islice(batches(len(images), self.batch_size, draws), self.steps):
            features, wanted = pairs[chosen].unbind(dim=1)
            optimizer.zero_grad()
            F.l1_loss(adapter(features), wanted).backward()
            optimizer.step()
        return {"down": adapter.down.detach(), "up": adapter.up.detach()}

    def apply(self, merged: Merged, parts: Tensors) -> Merged:
        tasks = sorted({name.rpartition("/")[0] for name in parts})
        adapters = {
            task: SurgeryAdapter(parts[f"{task}/down"], parts[f"{task}/up"]).requires_grad_(False).eval()
            for task in tasks
        }
        return replace(merged, adapters=adapters, parts=dict(parts))
