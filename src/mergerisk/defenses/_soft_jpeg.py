"""JPEG with a rounding that has a gradient."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image

from mergerisk.attacks._transforms import dct_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK = 8
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
"""Rows: luminance, blue and red difference of red, green, blue (JFIF 1.02)."""


def soft_jpeg(images: torch.Tensor, quality: int) -> torch.Tensor:
    """JPEG compression whose rounding is x ↦ ⌊x⌉ + (x − ⌊x⌉)³ (Shin and Song 2017, "JPEG-resistant adversarial
    images", section 3): the derivative is 3 (x − ⌊x⌉)², everything else is linear.

    Pillow's tables and its 4:2:0 sampling: colour differences are averaged over 2 × 2 pixels, and repeated. Not
    clipped; so it lies near, not at, what Pillow gives.

    Args:
        images: N × 1 or 3 × H × W, floating, in [0, 1].
        quality: 1 to 100.

    Returns:
        The same shape.
    """
    luminance, colour = (
        torch.tensor(table, dtype=images.dtype, device=images.device).view(_BLOCK, _BLOCK)
        for table in _tables(quality)
    )
    height, width = images.shape[-2:]
    levels = 255 * images
    if images.shape[1] == 1:
        return ((_coded(levels - 128, luminance)) + 128) / 255
    weights = torch.tensor(_TO_YCC, dtype=torch.float64)
    planes = torch.einsum("dc,nchw->ndhw", weights.to(images), levels)
    bright = _coded(planes[:, :1] - 128, luminance) + 128
    halved = F.avg_pool2d(_filled(planes[:, 1:], 2), 2)
    shades = _coded(halved, colour).repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    joined = torch.cat([bright, shades[..., :height, :width]], dim=1)
    decoded: torch.Tensor = torch.einsum("cd,ndhw->nchw", weights.inverse().to(images), joined) / 255
    return decoded


def _coded(planes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Planes (N × C × H × W) as the coefficients of 8 × 8 blocks, in steps of ``table``, tell them."""
    height, width = planes.shape[-2:]
    matrix = dct_matrix(_BLOCK).to(planes)
    filled = _filled(planes, _BLOCK)
    blocks = filled.unflatten(-2, (-1, _BLOCK)).unflatten(-1, (-1, _BLOCK)).movedim(-2, -3)
    # Transposed in between, so that each is one product of all blocks, not one for every block.
    steps = (blocks @ matrix.T).mT.contiguous() @ matrix.T / table.T
    whole = steps.detach().round()
    left = steps - whole
    blocks = (((whole + left * left * left) * table.T) @ matrix).mT.contiguous() @ matrix
    decoded: torch.Tensor = blocks.movedim(-3, -2).flatten(-2).flatten(-3, -2)[..., :height, :width]
    return decoded


def _filled(planes: torch.Tensor, multiple: int) -> torch.Tensor:
    """Whole blocks: the last row and column are repeated."""
    down, across = (-side % multiple for side in planes.shape[-2:])
    return F.pad(planes, (0, across, 0, down), mode="replicate") if down or across else planes


@cache
def _tables(quality: int) -> tuple[Sequence[int], Sequence[int]]:
    """Pillow's steps for luminance and colour, 64 each, row by row."""
    file = BytesIO()
    Image.new("RGB", (_BLOCK, _BLOCK)).save(file, "JPEG", quality=quality)
    with Image.open(file) as read:
        tables: dict[int, Sequence[int]] = read.quantization  # type: ignore[attr-defined]
        return tables[0], tables[1]
