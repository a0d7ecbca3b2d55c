"""Backbones of timm and OpenCLIP, which download their own pretrained weights by their own rules."""

from __future__ import annotations

import importlib
import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, described, did_you_mean, first_line
from mergerisk.models.factories import around, state_digest
from mergerisk.models.preprocessing import Normalization

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.models.encoder import Encoder
    from mergerisk.models.stated import StatedPreprocessing

_EXTRAS = {"timm": ("timm", "timm"), "open_clip": ("open-clip", "open_clip_torch")}
"""Our extra, and the distribution, by library."""


def load(
    library: str,
    name: str,
    *,
    image_size: int | None = None,
    preprocessing: StatedPreprocessing | None = None,
    offline: bool = False,
) -> Encoder:
    """A pretrained encoder of another library.

    Args:
        library: ``"timm"`` or ``"open_clip"``.
        name: a name that ``timm.create_model`` knows; or OpenCLIP's name of a model and, behind a slash, of its
            weights, which may be left out where there is no choice. Of OpenCLIP what is merged is the image tower
            with its projection.
        image_size: side of the images it sees, in pixels; the pretrained size by default, and of OpenCLIP always.
        preprocessing: instead of the mean and standard deviation that the library knows.
        offline: nothing may be downloaded.

    Raises:
        UserError: the library cannot be imported; no such model or weights; an image size it does not take; or
            offline, where the library has not been told so itself.
    """
    who = f"{library}:{name}"
    if offline and os.environ.get("HF_HUB_OFFLINE", "").upper() not in {"1", "ON", "YES", "TRUE"}:
        raise UserError(
            f"{who}: {library} downloads by itself; set HF_HUB_OFFLINE=1 in the environment to work offline"
        )
    module = _import(library)
    if library == "timm":
        return _load_timm(module, who, name, image_size, preprocessing)
    return _load_open_clip(module, who, name, image_size, preprocessing)


def identity(library: str, name: str, *, offline: bool = False) -> dict[str, str]:
    """What decides what the backbone computes: its name, the library's version, and SHA-256 of the weights."""
    state = load(library, name, offline=offline).state()
    distribution = _EXTRAS[library][1]
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        version = "unknown"
    return {"backbone": f"{library}:{name}", distribution: version, "weights": state_digest(state)}


def _import(library: str) -> Any:
    extra, _ = _EXTRAS[library]
    install = f"pip install 'mergerisk[{extra}]'"
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise UserError(f"{library} cannot be imported: {described(error)}; {install}") from error
    except Exception as error:  # torchvision fails with whatever its compiled part does
        raise UserError(
            f"{library} cannot be imported: {described(error)}; it needs a torchvision that matches the installed "
            f"torch: install the two together from one index, then {install}"
        ) from error


def _load_timm(
    timm: Any, who: str, name: str, image_size: int | None, given: StatedPreprocessing | None
) -> Encoder:
    model: Any = _create(who, lambda: timm.create_model(name, pretrained=True, num_classes=0))
    about: dict[str, Any] = dict(model.pretrained_cfg)
    _, height, width = about["input_size"]
    native = max(height, width)
    if image_size is not None and image_size != native and about.get("fixed_input_size"):
        # Its position embeddings are interpolated on the way, so that weights keep their shapes.
        model = _create(
            f"{who}: image_size {image_size}",
            lambda: timm.create_model(name, pretrained=True, num_classes=0, dynamic_img_size=True),
        )
    usual = Normalization(tuple(about["mean"]), tuple(about["std"]))
    return around(who, model.float(), image_size or native, usual, given)


def _load_open_clip(
    open_clip: Any, who: str, name: str, image_size: int | None, given: StatedPreprocessing | None
) -> Encoder:
    architecture, weights = _weights(open_clip, who, name)
    model: Any = _create(who, lambda: open_clip.create_model(architecture, pretrained=weights))
    tower = model.visual
    size = tower.image_size
    native = max(size) if isinstance(size, tuple | list) else int(size)
    if image_size not in {None, native}:
        raise UserError(
            f"{who}: image_size {image_size}: OpenCLIP's models take their own {native} only; give a CLIP in "
            "transformers' layout for other sizes"
        )
    usual = Normalization(tuple(tower.image_mean), tuple(tower.image_std))
    return around(who, tower.float(), native, usual, given)


def _weights(open_clip: Any, who: str, name: str) -> tuple[str, str | None]:
    """OpenCLIP's name of the model, and of its weights."""
    if name.startswith("hf-hub:"):
        return name, None
    architecture, _, weights = name.partition("/")
    known = list(open_clip.list_pretrained_tags_by_model(architecture))
    if not known:
        models = open_clip.list_models()
        raise UserError(
            f"{who}: OpenCLIP has no pretrained model {architecture!r}{did_you_mean(architecture, models)}"
        )
    if not weights and len(known) == 1:
        return architecture, str(known[0])
    if weights not in known:
        raise UserError(f"{who}: name one of its weights, open_clip:{architecture}/WEIGHTS: {', '.join(known)}")
    return architecture, weights


def _create(who: str, create: Any) -> nn.Module:
    try:
        model: nn.Module = create()
    except Exception as error:  # the library's own code: an unknown name, no connection
        raise UserError(f"{who}: cannot be loaded: {first_line(error)}") from error
    return model
