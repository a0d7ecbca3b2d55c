"""Spatial operations on batches.

A separable filter of an H × W image is ``A X Bᵀ``, with A (H × H) acting on rows and B (W × W) on columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import scipy.fft
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 32
"""Rows of a banded matrix that are multiplied at once."""


def gaussian_blur(images: torch.Tensor, kernel_size: int, sigma: float) -> torch.Tensor:
    """Convolve each channel (N × C × H × W) with a normalised Gaussian, zero padding, same size.

    The one-dimensional kernel is exp(−t²/2) at ``kernel_size`` points t from −sigma to sigma; the image's is
    its outer product, so that two banded products equal the convolution.
    """
    t = torch.linspace(-sigma, sigma, kernel_size, dtype=torch.float64)
    kernel = torch.exp(-t.square() / 2)
    kernel = (kernel / kernel.sum()).to(images)
    height, width = images.shape[-2:]
    columns = [images[..., near] @ band.T for near, band in _band(kernel, width)]
    blurred = torch.cat(columns, dim=-1)
    return torch.cat([band @ blurred[..., near, :] for near, band in _band(kernel, height)], dim=-2)


def _band(kernel: torch.Tensor, size: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """The convolution of ``size`` values as the band of a matrix, in blocks of rows: which values a block reads,
    and its part of the matrix. Row i holds the kernel centred on column i."""
    half = len(kernel) // 2
    for start in range(0, size, _BLOCK):
        stop = min(size, start + _BLOCK)
        near = slice(max(0, start - half), min(size, stop + half))
        places = torch.arange(near.start, near.stop, device=kernel.device)
        offsets = places - torch.arange(start, stop, device=kernel.device)[:, None] + half
        inside = (offsets >= 0) & (offsets < len(kernel))
        yield near, torch.where(inside, kernel[offsets.clamp(0, len(kernel) - 1)], 0.0)


def dct_matrix(size: int) -> torch.Tensor:
    """float64, size × size: the orthonormal discrete cosine transform, type II, of a column of ``size`` values."""
    frequency, place = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    angles: torch.Tensor = frequency * (2 * place + 1) * (torch.pi / (2 * size))
    matrix: torch.Tensor = angles.cos() * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix


def cosine_transform(images: torch.Tensor) -> torch.Tensor:
    """The orthonormal cosine transform, type II, of each channel of images (N × C × H × W); differentiable."""
    spectrum: torch.Tensor = _CosineTransform.apply(images, False)  # type: ignore[no-untyped-call]
    return spectrum


def inverse_cosine_transform(spectrum: torch.Tensor) -> torch.Tensor:
    """The images that have a spectrum (N × C × H × W); differentiable."""
    images: torch.Tensor = _CosineTransform.apply(spectrum, True)  # type: ignore[no-untyped-call]
    return images


class _CosineTransform(torch.autograd.Function):
    """D X Dᵀ with D orthonormal, or Dᵀ X D: each is the way back of the other."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor, inverse: bool) -> torch.Tensor:
        context.inverse = inverse
        if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
            transform = scipy.fft.idctn if inverse else scipy.fft.dctn
            found = transform(
                values.detach().numpy(), norm="ortho", axes=(-2, -1), workers=torch.get_num_threads()
            )
            return torch.from_numpy(found)
        # Elsewhere as products of matrices, which accelerators are made for.
        rows, columns = (dct_matrix(side).to(values) for side in values.shape[-2:])
        return rows.T @ values @ columns if inverse else rows @ values @ columns.T

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return (cosine_transform if context.inverse else inverse_cosine_transform)(gradients[0]), None


def resize_and_pad(
    images: torch.Tensor, scales: torch.Tensor, top: torch.Tensor, left: torch.Tensor
) -> torch.Tensor:
    """Shrink each image (N × C × H × W) by its own scale and place it on black of the same size.

    Args:
        images: the batch.
        scales: N, in (0, 1]: the share of the side that is kept, rounded to whole pixels.
        top: N, in [0, 1): where in the free rows the image is placed.
        left: N, in [0, 1): where in the free columns.

    Returns:
        Bilinear (half-pixel centres, no antialiasing), then zero padding. A scale of 1 returns the image exactly.
    """
    height, width = images.shape[-2:]
    rows = (scales * height).round().clamp(min=1).long()
    columns = (scales * width).round().clamp(min=1).long()
    # The minimum is for numbers that were rounded up to 1.
    above = (top * (height - rows + 1)).floor().long().minimum(height - rows)
    before = (left * (width - columns + 1)).floor().long().minimum(width - columns)
    placed = []
    # One image after another: a batch of sizes as one product would cost many times as much.
    for image, h, w, y, x in zip(
        images.split(1), rows.tolist(), columns.tolist(), above.tolist(), before.tolist(), strict=True
    ):
        if (h, w) == (height, width):
            placed.append(image)
        else:
            small = F.interpolate(image, (h, w), mode="bilinear", align_corners=False)
            placed.append(F.pad(small, (x, width - w - x, y, height - h - y)))
    return torch.cat(placed)


def partition(shares: torch.Tensor, side: int) -> torch.Tensor:
    """Cut ``side`` pixels into parts in proportion to ``shares`` (… × B): int64, … × B, their sizes.

    Cuts are rounded to whole pixels, so a part may be empty.
    """
    cuts = (shares / shares.sum(dim=-1, keepdim=True) * side).cumsum(dim=-1).round().long()
    return cuts.diff(dim=-1, prepend=torch.zeros_like(cuts[..., :1]))


def shuffle_blocks(
    images: torch.Tensor,
    heights: torch.Tensor,
    widths: torch.Tensor,
    row_order: torch.Tensor,
    column_order: torch.Tensor,
    angles: torch.Tensor,
) -> torch.Tensor:
    """Rearrange the blocks of each image (N × C × H × W) and rotate each about its centre.

    Args:
        images: the batch.
        heights: int64, N × B: of the image's rows of blocks, from the top; they add up to H.
        widths: int64, N × B: of its columns of blocks, from the left; they add up to W.
        row_order: int64, N × B: which row of blocks comes first, second, …
        column_order: int64, N × B × B: the same for the blocks of each row of the result.
        angles: N × B × B, radians, of the blocks of the result. A pixel r down and c right of its block's centre
            shows what was r cos θ − c sin θ down and r sin θ + c cos θ right of it.

    Returns:
        Bilinear within each block, as if its border were repeated for half a pixel; black beyond.
    """
    height, width = images.shape[-2:]
    row, down, top, bottom = _rearrange(heights, row_order, height)
    column, across, left, right = _rearrange(widths[:, None].expand_as(column_order), column_order, width)

    # What an output pixel shows depends on its column and its row of blocks (tables, N × B × W), and linearly on
    # how far down in that row of blocks it is.
    left, right, angles = (of_blocks.gather(-1, column) for of_blocks in (left, right, angles))
    top, bottom = (of_rows[..., None].expand_as(column) for of_rows in (top, bottom))
    cos, sin = angles.cos(), angles.sin()
    down = down.to(images)[..., None]
    starts = torch.arange(len(images), device=row.device)[:, None] * row_order.shape[1]
    lines = (starts + row).flatten()

    def spread(table: torch.Tensor) -> torch.Tensor:
        """N × H × W: for every output row, the line of its row of blocks."""
        return table.to(images).flatten(0, 1).index_select(0, lines).view(-1, height, width)

    def shown(
        first: torch.Tensor, last: torch.Tensor, turned: torch.Tensor, slope: torch.Tensor, side: int
    ) -> torch.Tensor:
        """N × H × W: the place that every output pixel shows; the side spans −1 to 1, as grid_sample wants it."""
        start, middle, end = ((2 * place + 1) / side - 1 for place in (first, (first + last) / 2, last))
        exact = spread(slope * 2 / side).mul_(down).add_(spread(middle + turned * 2 / side))
        nearest = exact.clamp(spread(start), spread(end))
        # What is more than half a pixel beyond is sent out of sight, where grid_sample sees black.
        beyond: torch.Tensor = F.hardshrink(exact.sub_(nearest), 1 / side)
        return nearest.add_(beyond, alpha=4 * side)

    x = shown(left, right, across * cos, sin, width)
    y = shown(top, bottom, -across * sin, cos, height)
    # Kept as two planes: interleaving them in memory takes longer.
    result: torch.Tensor = F.grid_sample(images, torch.stack([x, y], dim=1).movedim(1, -1), align_corners=False)
    return result


def _rearrange(
    sizes: torch.Tensor, order: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put the parts of a line of ``side`` places (sizes: … × B) in another order.

    Returns:
        For every place of the new line (… × side): the part it lies in (int64), and how far it is from that part's
        centre; for every part of the new line (… × B): its first and its last place in the old one. In float64.
    """
    first = (sizes.cumsum(dim=-1) - sizes).gather(-1, order)
    sizes = sizes.gather(-1, order)
    ends = sizes.cumsum(dim=-1)
    places = torch.arange(side, device=sizes.device)
    part = (places >= ends[..., None]).sum(dim=-2)
    offset = places - (ends - (sizes + 1) / 2).gather(-1, part)
    return part, offset.double(), first.double(), (first + sizes - 1).double()
