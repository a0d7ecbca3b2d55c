"""Images that are read when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from mergerisk.tasks.arrays import Rows


class Images(Protocol):
    """Images, N × 3 × H × W, in [0, 1]: what a float32 tensor and :class:`LazyImages` have in common."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> torch.Size:
        """N × 3 × H × W."""

    def __getitem__(self, index: Any, /) -> torch.Tensor:
        """One image (3 × H × W) by its number, or several by a slice or an int64 tensor: float32."""

    def split(self, size: int, /) -> Iterable[torch.Tensor]:
        """All images, ``size`` at a time."""


class LazyImages:
    """Images kept as bytes, of which only those asked for become float32.

    Args:
        rows: N × H × W × 3, uint8.
        positions: of the rows that are meant, in order; all by default.
    """

    def __init__(self, rows: Rows, positions: NDArray[np.int64] | None = None) -> None:
        self._rows = rows
        self._positions = np.arange(rows.shape[0]) if positions is None else positions

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        return f"LazyImages({' × '.join(map(str, self.shape))})"

    @property
    def shape(self) -> torch.Size:
        _, height, width, channels = self._rows.shape
        return torch.Size((len(self), channels, height, width))

    def __getitem__(self, index: int | slice | torch.Tensor, /) -> torch.Tensor:
        positions = self._positions[_as_numpy(index)]
        pixels = torch.from_numpy(self._rows[np.atleast_1d(positions)])
        images = pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)
        return images if positions.ndim else images[0]

    def subset(self, index: slice | torch.Tensor) -> LazyImages:
        """The images that ``index`` selects, still unread."""
        return LazyImages(self._rows, self._positions[_as_numpy(index)])

    def split(self, size: int, /) -> Iterator[torch.Tensor]:
        """All images, ``size`` at a time; each portion is read when it is its turn."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def check_pixels(images: Images, where: str = "images") -> None:
    """See that images are what everything here takes: floating, N × C × H × W, in [0, 1].

    Lazy images are so by construction; to look at them would be to read them all.

    Args:
        images: the images.
        where: how messages begin.

    Raises:
        UserError: they are something else; the message says what is probably meant.
    """
    if not isinstance(images, torch.Tensor):
        return
    if images.ndim != 4 or not images.is_floating_point():
        hint = "" if images.is_floating_point() else "; divide 8-bit images by 255"
        raise UserError(
            f"{where}: must be floating point, N × C × H × W, got {images.dtype}, {tuple(images.shape)}{hint}"
        )
    if not images.numel():
        return
    low, high = map(float, images.detach().aminmax())
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails too
        hint = (
            "give them as they are before normalising, which models do themselves"
            if low < 0.0
            else "divide 8-bit images by 255"
        )
        raise UserError(f"{where}: pixels must lie in [0, 1], found {low:g} to {high:g}; {hint}")


def _as_numpy(index: int | slice | torch.Tensor) -> Any:
    return index.cpu().numpy() if isinstance(index, torch.Tensor) else index
