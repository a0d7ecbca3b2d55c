"""Surgery: per-task adapters that pull a merged encoder's features towards the experts'."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from mergerisk.merging.adamerging import draw
from mergerisk.merging.method import Merged, check_calibration
from mergerisk.models.features import extract_features
from mergerisk.randomness import generator
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.merging.method import Calibration
    from mergerisk.models.encoder import Encoder


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

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """N × width → N × width."""
        # As in Head: one adapter serves encoders on any device.
        hidden = F.relu(F.linear(features, self.down.to(features)))
        return features - F.linear(hidden, self.up.to(features))


@hyperparameters
class Surgery:
    """Representation surgery (Yang et al. 2024, arXiv 2402.02705, equations 4 and 5), stacked on any merge.

    Features are not normalised before the adapter, as in the paper; FusionBench normalises them.

    Attributes:
        rank: r of D (r × width) and U (width × r); U starts at zero, so that training starts at the merge.
        steps: optimiser steps per task, each on ``batches`` × ``batch_size`` images.
        learning_rate: of Adam.
    """

    name: ClassVar[str] = "surgery"

    rank: PositiveInt = 16
    steps: PositiveInt = 500
    batches: PositiveInt = 2
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-3

    def correct(
        self,
        merged: Merged,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None,
        seed: int = 0,
    ) -> Merged:
        """``merged`` with an adapter per task, trained by L1 to the expert's features.

        Raises:
            UserError: calibration is missing for a task.
        """
        calibration = check_calibration(experts, calibration, self.name)
        adapters = {}
        for task, expert in experts.items():
            images = calibration[task].images
            # Both encoders are frozen, so their features are computed once, not once a step.
            source = extract_features(merged.encoder, images)
            target = extract_features(expert, images)
            adapters[task] = self._fit(source, target, generator(seed, "surgery", task))
        return Merged(merged.encoder, adapters, merged.coefficients)

    def _fit(self, source: torch.Tensor, target: torch.Tensor, draws: torch.Generator) -> SurgeryAdapter:
        width = source.shape[1]
        down = torch.empty(self.rank, width)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=draws)
        adapter = SurgeryAdapter(down, torch.zeros(width, self.rank))
        optimizer = torch.optim.Adam(adapter.parameters(), lr=self.learning_rate)
        pairs = torch.stack([source, target], dim=1)
        for _ in range(self.steps):
            features, wanted = draw(pairs, self.batches * self.batch_size, draws).unbind(dim=1)
            optimizer.zero_grad()
            F.l1_loss(adapter(features), wanted).backward()
            optimizer.step()
        return adapter.requires_grad_(False).eval()
