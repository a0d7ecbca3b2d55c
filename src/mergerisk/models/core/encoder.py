"""Encoders: pixels in [0, 1] to features. What gets merged."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from mergerisk.errors import UserError
from mergerisk.models.core.preprocessing import Resizing
from mergerisk.models.core.tied import retie

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

State = dict[str, torch.Tensor]
"""Parameters and buffers by name."""


class Encoder(nn.Module):
    """A backbone behind the pixels it expects.

    Resizing and normalising live in here, so that a budget of 8/255 means 8/255 of the image that is attacked.

    Args:
        backbone: the module whose parameters are merged.
        features: backbone, normalised pixels (N × 3 × ``image_size`` × ``image_size``) → features (N × ``width``);
            by default the backbone's own output. A module may hold tensors of its own, such as CLIP's projection:
            they go where the encoder goes, but are no part of its state.
        width: number of features.
        image_size: side of the images the backbone expects, in pixels.
        mean: per channel, subtracted from pixels in [0, 1].
        std: per channel, divides what is left.
        resizing: how other images come to that size; squeezed into it (bilinear) by default.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        features: Callable[[nn.Module, torch.Tensor], torch.Tensor] = nn.Module.__call__,
        resizing: Resizing | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.features = features
        self.width = width
        self.image_size = image_size
        self.resizing = resizing or Resizing((image_size, image_size))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1], N × 3 × H × W → features, N × ``width``.

        Raises:
            UserError: the images are bytes.
        """
        if not images.is_floating_point():
            raise UserError(
                f"images must be floating point, in [0, 1], got {images.dtype}; divide 8-bit images by 255"
            )
        return self.encode(self.resized(images))

    def encode(self, resized: torch.Tensor) -> torch.Tensor:
        """What :meth:`resized` gave → features, N × ``width``."""
        return self.features(self.backbone, self.normalized(resized))

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1], N × 3 × H × W → what the backbone expects: resized and normalised."""
        return self.normalized(self.resized(images))

    def normalized(self, resized: torch.Tensor) -> torch.Tensor:
        """What :meth:`resized` gave, less the mean and divided by the standard deviation."""
        return (resized - self.mean) / self.std

    def resized(self, images: torch.Tensor) -> torch.Tensor:
        """Images, N × 3 × H × W, at the size the backbone expects."""
        return self.resizing(images)

    def state(self) -> State:
        """The backbone's parameters and buffers by the backbone's own names: a view, not a copy."""
        return {name: tensor.detach() for name, tensor in self.backbone.state_dict().items()}

    def with_state(self, state: Mapping[str, torch.Tensor] | Encoder) -> Encoder:
        """A new encoder of the same architecture that holds (without copying) ``state``, or another encoder's.

        Parameters that are tied in this one and equal in ``state`` are tied in the new one.

        Raises:
            RuntimeError: names or shapes differ.
        """
        if isinstance(state, Encoder):
            state = state.state()
        # The memo keeps deepcopy from copying the tensors that are replaced the next moment, and those of the
        # features that are never trained.
        kept = {id(tensor): tensor for tensor in (*self.backbone.parameters(), *self.buffers())}
        with torch.inference_mode(False):  # the twin may be attacked later
            twin = copy.deepcopy(self, dict(kept))
        twin.backbone.load_state_dict(dict(state), strict=True, assign=True)
        retie(twin.backbone, self.backbone)
        return twin.requires_grad_(False).eval()

    def with_features(self, features: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> Encoder:
        """A new encoder on the same backbone, with other ``features``."""
        twin = Encoder(
            self.backbone,
            width=self.width,
            image_size=self.image_size,
            mean=self.mean.flatten().tolist(),
            std=self.std.flatten().tolist(),
            features=features,
            resizing=self.resizing,
        )
        twin.mean, twin.std = self.mean, self.std
        return twin.to(self.mean.device).eval()
