"""What images a transformers model takes: their preprocessing and their side, by its files and its family."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError
from mergerisk.models.core.preprocessing import (
    Normalization,
    Preprocessing,
    Resizing,
    parse_preprocessing,
    read_preprocessor,
)
from mergerisk.models.on_disk.filenames import CONFIG, PREPROCESSOR
from mergerisk.models.sources.families import FAMILIES, Family

if TYPE_CHECKING:
    from pathlib import Path

_SMALLEST = 32
"""Side of the smallest image that convolutional families take, in pixels: their usual total stride."""

_USUAL = 224
"""Side of the images of backbones that do not say, in pixels."""


def read_preprocessing(folder: Path, model_type: object, native: int | None) -> tuple[Preprocessing, str]:
    """What a folder says of its model's pixels, with what is usual for its family where it does not say.

    Every command asks here, so that a folder is the same model in all of them.

    Args:
        folder: of a model.
        model_type: in its ``config.json``.
        native: side of the images that its configuration names, in pixels; None if it names none.

    Returns:
        The preprocessing, and in words what had to be assumed; empty if nothing had.

    Raises:
        UserError: see :func:`mergerisk.models.core.preprocessing.parse_preprocessing`.
    """
    family = FAMILIES.get(str(model_type))
    side = native or (None if family is None else _USUAL)
    usual = Preprocessing(
        Resizing(None if side is None else (side, side), resample=family.resample if family else "bilinear"),
        family.normalization if family else Normalization(),
    )
    found = read_preprocessor(folder)
    if found is None:
        return usual, f"no {PREPROCESSOR}; taken to be {_in_words(usual)}"
    file, content = found
    own = parse_preprocessing(file, content, usual.normalization, usual.resizing.resample)
    if content.get("do_resize", True) and own.resizing.size is None and own.resizing.crop is None:
        own = replace(own, resizing=replace(own.resizing, size=usual.resizing.size))
    return own, ""


def _in_words(preprocessing: Preprocessing) -> str:
    size = preprocessing.resizing.result
    return ", ".join(
        [
            f"mean {list(preprocessing.normalization.mean)}",
            f"std {list(preprocessing.normalization.std)}",
            *([] if size is None else [f"images of {size[0]} × {size[1]} pixels"]),
        ]
    )


def native_side(who: str, config: Any) -> int | None:
    """Side of the images that a configuration names; None if it names none.

    Raises:
        UserError: they are not square.
    """
    return _square(who, getattr(getattr(config, "vision_config", config), "image_size", None))


def fitted(
    who: str, own: Preprocessing, model_type: str, native: int | None, image_size: int | None
) -> tuple[Preprocessing, int]:
    """A preprocessing that gives an encoder the images it takes, and their side.

    Args:
        who: how messages begin.
        own: what comes with the model.
        model_type: one of :data:`FAMILIES`.
        native: see :func:`native_side`.
        image_size: the side that is asked for instead of the model's own.

    Raises:
        UserError: the two differ where they must not, or nothing says what the side is.
    """
    resizing, family = own.resizing, FAMILIES[model_type]
    if image_size is not None:
        return replace(own, resizing=Resizing((image_size, image_size), None, resizing.resample)), image_size
    side = _square(who, resizing.result)
    if side is None and family.any_size:
        raise UserError(f"{who}: its preprocessor says do_resize: false, and so no size; set image_size")
    side = side or native or _USUAL
    if not family.any_size and side != native:
        raise UserError(
            f"{who}: its preprocessor makes images of {side} × {side} pixels, {CONFIG} says image_size {native}; "
            f"correct one of the files, or set image_size to {native}"
        )
    if resizing.crop is None:  # whatever their shape, images become squares
        own = replace(own, resizing=replace(resizing, size=(side, side)))
    return own, side


def check_size(who: str, size: int, family: Family, config: Any) -> None:
    """See that a family takes images of a size.

    Raises:
        UserError: its patches do not divide them, or they are too small.
    """
    if family.patches:
        patch = _square(who, config.patch_size) or 1
        if size < 1 or size % patch:
            raise UserError(f"{who}: image_size {size} is no multiple of its patches' {patch} pixels")
    elif size < _SMALLEST:
        raise UserError(f"{who}: image_size {size} is below {_SMALLEST}, the smallest that its convolutions take")


def _square(who: str, size: Any) -> int | None:
    sides = {int(side) for side in size} if isinstance(size, list | tuple) else {size}
    if len(sides) > 1:
        raise UserError(f"{who}: expects images of {' × '.join(map(str, size))} pixels; square ones are supported")
    return sides.pop()
