"""What a model's own pixels are made of, as ``preprocessor_config.json`` or ``processor_config.json`` says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from mergerisk.errors import UserError
from mergerisk.models.on_disk.filenames import PREPROCESSOR, PROCESSOR, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from mergerisk.models.core.stated import Resample, StatedPreprocessing

_HALF = (0.5, 0.5, 0.5)

_UNSUPPORTED = ("do_flip_channel_order", "do_grayscale", "do_pad", "rescale_offset")
"""What image processors of some models do besides resizing, cropping and normalising."""

_RESAMPLES: Mapping[object, Resample] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which image processors write."""

_DIVIDES_TWICE = "EfficientNetImageProcessor"
"""Divides by the standard deviation once more, unless ``include_top`` is false."""


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
class Resizing:
    """How images come to the size a model expects.

    Attributes:
        size: height and width that images are resized to; one number for their shorter side; None for none.
        crop: height and width of the middle that is kept; None for all.
        resample: how; antialiased but for ``nearest``, as Pillow does it.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None = None
    resample: Resample = "bilinear"

    @property
    def result(self) -> tuple[int, int] | None:
        """Height and width of every square image's result; None where they are the image's own."""
        return self.crop or ((self.size, self.size) if isinstance(self.size, int) else self.size)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1], N × 3 × H × W, resized and cropped."""
        height, width = images.shape[-2:]
        size = self.size
        if isinstance(size, int):
            short = min(height, width)
            size = (size * height // short, size * width // short)
        if size is not None and size != (height, width):
            images = self._resampled(images, size)
        if self.crop is None:
            return images
        edges: list[int] = []
        for side, kept in zip(reversed(images.shape[-2:]), reversed(self.crop), strict=True):
            before = (side - kept) // 2
            edges += [-before, kept - side + before]
        return F.pad(images, edges)  # a negative edge is cut off

    def _resampled(self, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if self.resample == "nearest":
            return F.interpolate(images, size, mode="nearest-exact")
        resized = F.interpolate(images, size, mode=self.resample, align_corners=False, antialias=True)
        # Bicubic overshoots beside edges; bytes, which processors resize, cannot.
        return resized.clamp(0, 1) if self.resample == "bicubic" else resized


@dataclass(frozen=True)
class Preprocessing:
    """What a model's own pixels are made of.

    Attributes:
        resizing: how images come to their size.
        normalization: of the pixels that are left.
    """

    resizing: Resizing
    normalization: Normalization = Normalization()

    def stated(self, given: StatedPreprocessing | None) -> Preprocessing:
        """The same with what was given instead."""
        if given is None:
            return self
        changed = self
        if given.mean is not None and given.std is not None:
            changed = replace(changed, normalization=Normalization(given.mean, given.std))
        if given.resample is not None:
            changed = replace(changed, resizing=replace(self.resizing, resample=given.resample))
        return changed

    def fields(self) -> dict[str, Any]:
        """Every part of it by the name that processors give it, as plain data."""

        def plain(value: Any) -> Any:
            return list(value) if isinstance(value, tuple) else value

        return {
            "image_mean": list(self.normalization.mean),
            "image_std": list(self.normalization.std),
            "size": plain(self.resizing.size),
            "crop_size": plain(self.resizing.crop),
            "resample": self.resizing.resample,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """The inverse of :meth:`fields`."""

        def sides(value: Any) -> Any:
            return tuple(value) if isinstance(value, list) else value

        return cls(
            Resizing(sides(fields["size"]), sides(fields["crop_size"]), fields["resample"]),
            Normalization(tuple(fields["image_mean"]), tuple(fields["image_std"])),
        )


def read_preprocessor(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file of a model's folder that says how its pixels are made, and what that says; None if there is none.

    As transformers does, an ``image_processor`` within ``processor_config.json`` comes before
    ``preprocessor_config.json``.

    Raises:
        UserError: a file is no JSON object.
    """
    file = folder / PROCESSOR
    if file.is_file():
        inside = read_json(file).get("image_processor")
        if isinstance(inside, dict):
            return file, inside
    file = folder / PREPROCESSOR
    return (file, read_json(file)) if file.is_file() else None


def parse_preprocessing(
    file: Path,
    content: Mapping[str, Any],
    default: Normalization | None = None,
    resample: Resample = "bilinear",
) -> Preprocessing:
    """The fields of an image processor that decide a pixel.

    Args:
        file: named in messages.
        content: what it holds.
        default: mean and standard deviation where it names none; 0.5 by default.
        resample: likewise.

    Raises:
        UserError: they cannot be understood, or pixels are prepared in a way that is not supported here.
    """
    for key in _UNSUPPORTED:
        if content.get(key):
            raise UserError(f"{file}: {key} is not supported; give the model as package.module:factory")
    normalization = _normalization(file, content, default or Normalization())
    try:
        size: Any = _size(content.get("size")) if content.get("do_resize", True) else None
        crop: Any = _size(content.get("crop_size")) if content.get("do_center_crop", False) else None
        crop = (crop, crop) if isinstance(crop, int) else crop
        if "crop_pct" in content and size is not None:  # ConvNeXt and its kin
            size, crop = _cropped(size, content["crop_pct"])
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{file}: cannot be understood: {error}") from error
    given = content.get("resample")
    if given is not None and given not in _RESAMPLES:
        raise UserError(
            f"{file}: resample {given!r} is not supported, only 0 (nearest), 2 (bilinear) and 3 (bicubic); give "
            "the model as package.module:factory"
        )
    return Preprocessing(Resizing(size, crop, resample if given is None else _RESAMPLES[given]), normalization)


def _normalization(file: Path, content: Mapping[str, Any], usual: Normalization) -> Normalization:
    try:
        # Pixels are in [0, 1] already, which is what the usual factor makes of bytes.
        factor = 255 * float(content.get("rescale_factor", 1 / 255)) if content.get("do_rescale", True) else 255.0
        normalised = content.get("do_normalize", True)
        mean = content.get("image_mean", usual.mean) if normalised else [0.0] * 3
        std = content.get("image_std", usual.std) if normalised else [1.0] * 3
        twice = content.get("include_top", content.get("image_processor_type") == _DIVIDES_TWICE)
        if twice and "image_std" in content:
            std = [float(one) * float(other) for one, other in zip(std, content["image_std"], strict=True)]
        mean, std = ([float(value) / factor for value in values] for values in (mean, std))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{file}: cannot be understood: {error}") from error
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise UserError(f"{file}: image_mean and image_std need three numbers each, the latter above 0")
    return Normalization(tuple(mean), tuple(std))


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
