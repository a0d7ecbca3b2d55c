"""Patch embeddings as the matrix product that they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class PatchProjection(nn.Conv2d):
    """A convolution whose patches do not overlap, computed as one matrix product.

    On CPUs PyTorch's gradient of such a convolution with respect to the image takes several times as long as the
    product that it is. Made by :func:`project_patches`, of a convolution that was loaded.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        """N × C × H × W → N × width × H/s × W/s."""
        (side, across), (height, width) = self.kernel_size, input.shape[-2:]
        if height % side or width % across:  # the convolution leaves out what is over
            return super().forward(input)
        rows, columns = height // side, width // across
        patches = input.reshape(len(input), -1, rows, side, columns, across).permute(0, 2, 4, 1, 3, 5)
        projected = F.linear(patches.reshape(len(input), rows * columns, -1), self.weight.flatten(1), self.bias)
        placed: torch.Tensor = projected.transpose(1, 2).unflatten(2, (rows, columns))
        return placed


def project_patches(backbone: nn.Module) -> None:
    """From now on the convolutions of ``backbone`` that cut pixels into patches are matrix products.

    Those are the ones that read three channels, move by their own size, and neither pad nor dilate.
    """
    for part in backbone.modules():
        if (
            type(part) is nn.Conv2d
            and part.in_channels == 3
            and part.kernel_size == part.stride != (1, 1)
            and part.padding == (0, 0)
            and part.dilation == (1, 1)
            and part.groups == 1
        ):
            part.__class__ = PatchProjection
