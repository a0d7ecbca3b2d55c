"""Whole classifiers from a folder, the hub, or a factory: pixels in [0, 1] → logits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from mergerisk.errors import UserError, described
from mergerisk.importing import load_callable
from mergerisk.models.checkpoints import Checkpoint, read_json
from mergerisk.models.checks import check_finite
from mergerisk.models.hub import commit_of, fetch
from mergerisk.models.loading import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Mapping

_FACTORY = re.compile(r"[\w.]+:[\w.]+")

_UNSUPPORTED = ("do_flip_channel_order", "do_grayscale", "do_pad", "rescale_offset")
"""What image processors of some models do besides resizing, cropping and normalising."""


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier and what is known of it.

    Attributes:
        module: pixels in [0, 1], N × 3 × H × W → logits, float32, frozen, in evaluation mode.
        class_names: one per logit; None if it names none.
        commit: on the hub; None for what came from elsewhere.
        remark: what had to be assumed; empty if nothing had.
    """

    module: nn.Module
    class_names: tuple[str, ...] | None
    commit: str | None = None
    remark: str = ""


@dataclass(frozen=True)
class Preprocessing:
    """What a model's own pixels are made of.

    Attributes:
        size: height and width that images are resized to; one number for their shorter side; None for none.
        crop: height and width of the middle that is kept; None for all.
        mean: per channel, subtracted from pixels in [0, 1].
        std: per channel, divides what is left.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

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


class TransformersClassifier(nn.Module):
    """A transformers image classifier behind the pixels it expects.

    Resizing and normalising live in here, so that a budget of 8/255 means 8/255 of the image that is attacked.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.preprocessing = preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1], N × 3 × H × W → logits, N × classes."""
        pixels = (self.preprocessing.resized(images) - self.mean) / self.std
        logits: torch.Tensor = self.model(pixel_values=pixels).logits
        return logits


def load_classifier(name: str, *, offline: bool = False) -> LoadedClassifier:
    """The classifier called ``name``.

    Args:
        name: a folder in the layout that transformers saves, ``org/name[@revision]`` on the hub, or
            ``package.module:factory``, a callable without arguments that returns a module from pixels in [0, 1] to
            logits. Class names are the module's or the factory's ``class_names``, if it has any.
        offline: take models of the hub from the cache only.

    Raises:
        UserError: no such model; pickled weights, which are not read; a folder that holds no image classifier, or
            one whose images are prepared in a way that is not supported here; weights with NaN; a factory that
            fails.
    """
    if _FACTORY.fullmatch(name) and not Path(name).exists():
        loaded = _from_factory(name)
    else:
        loaded = _from_folder(name, fetch(name, offline=offline))
    check_finite(loaded.module.state_dict(), name)
    loaded.module.requires_grad_(False).eval()
    return loaded


def _from_folder(name: str, folder: Path) -> LoadedClassifier:
    from transformers import AutoModelForImageClassification

    if not folder.is_dir():
        raise UserError(f"{name}: a file; give the folder that save_pretrained made")
    Checkpoint(folder)  # refuses pickles, and files that are cut short
    config = read_json(folder / "config.json")
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForImageClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a configuration makes its model's code do
        raise UserError(f"{name}: cannot be loaded as an image classifier: {described(error)}") from error
    model, findings = loaded
    if findings["missing_keys"]:
        raise UserError(
            f"{name}: the weights lack {min(findings['missing_keys'])!r}; give a classifier with its head"
        )
    if getattr(model.config, "num_channels", 3) != 3:
        raise UserError(f"{name}: expects {model.config.num_channels} channels; images have three here")
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    named = labels != [f"LABEL_{index}" for index in range(len(labels))]
    processor = folder / "preprocessor_config.json"
    if processor.is_file():
        preprocessing, remark = _parse(processor, read_json(processor)), ""
    else:
        side = config.get("image_size")
        preprocessing = _parse(folder / "config.json", {} if side is None else {"size": side})
        remark = f"{name}: no preprocessor_config.json; mean and standard deviation taken to be 0.5"
    return LoadedClassifier(
        TransformersClassifier(model, preprocessing), tuple(labels) if named else None, commit_of(folder), remark
    )


def _parse(file: Path, content: Mapping[str, Any]) -> Preprocessing:
    """The fields of ``preprocessor_config.json`` that decide a pixel."""
    for key in _UNSUPPORTED:
        if content.get(key):
            raise UserError(f"{file}: {key} is not supported; give the model as package.module:factory")
    try:
        size: Any = _size(content.get("size")) if content.get("do_resize", True) else None
        crop: Any = _size(content.get("crop_size")) if content.get("do_center_crop", False) else None
        crop = (crop, crop) if isinstance(crop, int) else crop
        if "crop_pct" in content and size is not None:  # ConvNeXt and its kin
            size, crop = _cropped(size, content["crop_pct"])
        # Pixels are in [0, 1] already, which is what the usual factor makes of bytes.
        factor = 255 * float(content.get("rescale_factor", 1 / 255)) if content.get("do_rescale", True) else 255.0
        normalised = content.get("do_normalize", True)
        mean = content.get("image_mean", [0.5] * 3) if normalised else [0.0] * 3
        std = content.get("image_std", [0.5] * 3) if normalised else [1.0] * 3
        mean, std = ([float(value) / factor for value in values] for values in (mean, std))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{file}: cannot be understood: {error}") from error
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise UserError(f"{file}: image_mean and image_std need three numbers each, the latter above 0")
    return Preprocessing(size, crop, tuple(mean), tuple(std))


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


def _from_factory(name: str) -> LoadedClassifier:
    factory = load_callable(name)
    try:
        made = factory()
    except Exception as error:  # the user's own code
        raise UserError(f"{name}: cannot be loaded: {described(error)}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{name}: must return a torch.nn.Module, got {type(made).__name__}")
    names = getattr(made, "class_names", getattr(factory, "class_names", None))
    return LoadedClassifier(made, None if names is None else tuple(str(text) for text in names))
