"""What a model's own pixels are made of, as ``preprocessor_config.json`` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from mergerisk.errors import UserError
from mergerisk.models.files import PREPROCESSOR, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

_HALF = (0.5, 0.5, 0.5)

_UNSUPPORTED = ("do_flip_channel_order", "do_grayscale", "do_pad", "rescale_offset")
"""What image processors of some models do besides resizing, cropping and normalising."""


@dataclass(frozen=True)
class Normalization:
    """How pixels in [0, 1] are scaled.

    Attributes:
        mean: per channel, subtracted from pixels in [0, 1].
        std: per channel, divides what is left.
    """

    mean: tuple[float, ...] = _HALF
    std: tuple[float, ...] = _HALF


@dataclass(frozen=True)
class Preprocessing:
    """What a model's own pixels are made of.

    Attributes:
        size: height and width that images are resized to; one number for their shorter side; None for none.
        crop: height and width of the middle that is kept; None for all.
        normalization: of the pixels that are left.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    normalization: Normalization

    def resized(self, images: torch.Tensor) -> torch.Tensor:
        """Images, N × 3 × H × W, resized (bilinear) and cropped."""
        height, width = images.shape[-2:]
        size = self.size
        if isinstance(size, int):
            short = min(height, width)
            size = (size * height // short, size * width // short)
        if size is not None and size != (height, width):
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        if self.crop is None:
            return images
        edges: list[int] = []
        for side, kept in zip(reversed(images.shape[-2:]), reversed(self.crop), strict=True):
            before = (side - kept) // 2
            edges += [-before, kept - side + before]
        return F.pad(images, edges)  # a negative edge is cut off


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """What a folder's ``preprocessor_config.json`` holds; nothing if there is none."""
    file = folder / PREPROCESSOR
    return read_json(file) if file.is_file() else {}


def parse_normalization(
    file: Path, content: Mapping[str, Any], default: Normalization | None = None
) -> Normalization:
    """The fields of ``preprocessor_config.json`` that scale a pixel.

    Args:
        file: named in messages.
        content: what it holds.
        default: mean and standard deviation where it names none; 0.5 by default.

    Raises:
        UserError: they cannot be understood, or pixels are prepared in a way that is not supported here.
    """
    for key in _UNSUPPORTED:
        if content.get(key):
            raise UserError(f"{file}: {key} is not supported; give the model as package.module:factory")
    usual = default or Normalization()
    try:
        # Pixels are in [0, 1] already, which is what the usual factor makes of bytes.
        factor = 255 * float(content.get("rescale_factor", 1 / 255)) if content.get("do_rescale", True) else 255.0
        normalised = content.get("do_normalize", True)
        mean = content.get("image_mean", usual.mean) if normalised else [0.0] * 3
        std = content.get("image_std", usual.std) if normalised else [1.0] * 3
        mean, std = ([float(value) / factor for value in values] for values in (mean, std))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{file}: cannot be understood: {error}") from error
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise UserError(f"{file}: image_mean and image_std need three numbers each, the latter above 0")
    return Normalization(tuple(mean), tuple(std))


def parse_preprocessing(file: Path, content: Mapping[str, Any]) -> Preprocessing:
    """The fields of ``preprocessor_config.json`` that decide a pixel.

    Raises:
        UserError: see :func:`parse_normalization`.
    """
    normalization = parse_normalization(file, content)
    try:
        size: Any = _size(content.get("size")) if content.get("do_resize", True) else None
        crop: Any = _size(content.get("crop_size")) if content.get("do_center_crop", False) else None
        crop = (crop, crop) if isinstance(crop, int) else crop
        if "crop_pct" in content and size is not None:  # ConvNeXt and its kin
            size, crop = _cropped(size, content["crop_pct"])
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{file}: cannot be understood: {error}") from error
    return Preprocessing(size, crop, normalization)


def pretrained_side(file: Path, content: Mapping[str, Any]) -> int | None:
    """Side of the square images a model was used with, in pixels; None if its preprocessor does not say."""
    if not content:
        return None
    found = parse_preprocessing(file, content)
    size = found.crop or found.size
    if isinstance(size, tuple):
        return size[0] if size[0] == size[1] else None
    return size


def _size(value: Any) -> tuple[int, int] | int | None:
    """``size`` as the library's versions write it: a number, height and width, or the shorter side."""
    match value:
        case None:
            return None
        case int() | float():
            found: tuple[int, int] | int = (int(value), int(value))
        case {"shortest_edge": side, **others} if not others.get("longest_edge"):
            found = int(side)
        case {"height": height, "width": width}:
            found = (int(height), int(width))
        case [height, width]:
            found = (int(height), int(width))
        case _:
            raise ValueError(f"size {value!r}")
    if min(found if isinstance(found, tuple) else (found,)) < 1:
        raise ValueError(f"size {value!r}")
    return found


def _cropped(
    size: tuple[int, int] | int, share: float | None
) -> tuple[tuple[int, int] | int, tuple[int, int] | None]:
    """Small images: enlarged, so that their middle has the size; large ones are squeezed into it."""
    side = size if isinstance(size, int) else size[0]
    if side >= 384:
        return (side, side), None
    return int(side / (224 / 256 if share is None else share)), (side, side)
