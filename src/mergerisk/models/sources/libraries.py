"""Backbones of timm and OpenCLIP, which download their own pretrained weights by their own rules."""

from __future__ import annotations

import importlib
import os
import warnings
from importlib import metadata
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, described, did_you_mean, first_line
from mergerisk.models.core.preprocessing import Normalization
from mergerisk.models.sources.factories import around, state_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import nn

    from mergerisk.models.core.encoder import Encoder
    from mergerisk.models.core.stated import Resample, StatedPreprocessing

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
            weights, which may be left out where there is no choice; ``hf-hub:org/name`` and ``local-dir:FOLDER``
            for either. Of OpenCLIP what is merged is the image tower with its projection.
        image_size: side of the images it sees, in pixels; the pretrained size by default, and of OpenCLIP always.
        preprocessing: instead of the mean and standard deviation that the library knows.
        offline: nothing may be downloaded.

    Raises:
        UserError: the library cannot be imported; no such model or weights; an image size it does not take; or
            offline, where the library has not been told so itself.
    """
    if library == "timm":
        return _load_timm(name, image_size, preprocessing, offline=offline)
    return _load_open_clip(name, image_size, preprocessing, offline=offline)


def identity(library: str, name: str, *, offline: bool = False) -> dict[str, str]:
    """What decides what the backbone computes: its name, the library's version, and SHA-256 of the weights."""
    return identity_of(library, name, load(library, name, offline=offline).state())


def identity_of(library: str, name: str, state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Name, version and SHA-256 of weights that a library made."""
    distribution = _EXTRAS[library][1]
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        version = "unknown"
    return {"backbone": f"{library}:{name}", distribution: version, "weights": state_digest(state)}


def open_library(library: str, name: str, *, offline: bool) -> Any:
    """The library's module.

    Raises:
        UserError: it cannot be imported, or has not been told to work offline.
    """
    if offline and os.environ.get("HF_HUB_OFFLINE", "").upper() not in {"1", "ON", "YES", "TRUE"}:
        raise UserError(
            f"{library}:{name}: {library} downloads by itself; set HF_HUB_OFFLINE=1 in the environment to work "
            "offline"
        )
    extra, _ = _EXTRAS[library]
    install = f"pip install 'mergerisk[{extra}]'"
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name == library:
            raise UserError(f"{library} is not installed, which reads such models: {install}") from error
        raise UserError(f"{library} cannot be imported: {described(error)}; {install}") from error
    except Exception as error:  # torchvision fails with whatever its compiled part does
        raise UserError(
            f"{library} cannot be imported: {described(error)}; it needs a torchvision that matches the installed "
            f"torch: install the two together from one index, then {install}"
        ) from error


def timm_model(name: str, *, offline: bool = False, where: str = "", **options: Any) -> Any:
    """A pretrained model of timm, float32, in evaluation mode; ``where`` is said of it in messages."""
    timm = open_library("timm", name, offline=offline)
    model = _create(f"timm:{name}{where}", lambda: timm.create_model(name, pretrained=True, **options))
    return model.float().eval()


def open_clip_model(name: str, *, offline: bool = False) -> tuple[Any, Any]:
    """A pretrained pair of towers of OpenCLIP, float32, in evaluation mode, and the function that makes tokens.

    Raises:
        UserError: see :func:`load`; also where only a warning would say that weights were not found, or that they
            were trained with another activation than the model's.
    """
    who = f"open_clip:{name}"
    open_clip = open_library("open_clip", name, offline=offline)
    architecture, weights = _weights(open_clip, who, name)

    def create() -> nn.Module:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=_OTHER_ACTIVATION)
            found: nn.Module = open_clip.create_model(architecture, pretrained=weights, require_pretrained=True)
            return found

    try:
        model = _create(who, create)
    except UserError as error:
        if _OTHER_ACTIVATION not in str(error):
            raise
        quick = f"{architecture}-quickgelu"
        instead = quick if not architecture.endswith("-quickgelu") else architecture.removesuffix("-quickgelu")
        raise UserError(
            f"{who}: these weights were trained with another activation than this model's; give "
            f"open_clip:{instead}/{weights}"
        ) from error
    return model.float().eval(), lambda: open_clip.get_tokenizer(architecture)


_OTHER_ACTIVATION = "QuickGELU mismatch"
"""How OpenCLIP's warning begins."""


def _load_timm(name: str, image_size: int | None, given: StatedPreprocessing | None, *, offline: bool) -> Encoder:
    model = timm_model(name, offline=offline, num_classes=0)
    about: dict[str, Any] = dict(model.pretrained_cfg)
    _, height, width = about["input_size"]
    native = max(height, width)
    if image_size is not None and image_size != native and about.get("fixed_input_size"):
        # Its position embeddings are interpolated on the way, so that weights keep their shapes.
        where = f": image_size {image_size}"
        model = timm_model(name, offline=offline, where=where, num_classes=0, dynamic_img_size=True)
    usual = Normalization(tuple(about["mean"]), tuple(about["std"]))
    resample = _resample(about.get("interpolation"))
    return around(f"timm:{name}", model, image_size or native, usual, given, resample)


def _load_open_clip(
    name: str, image_size: int | None, given: StatedPreprocessing | None, *, offline: bool
) -> Encoder:
    who = f"open_clip:{name}"
    tower = open_clip_model(name, offline=offline)[0].visual
    size = tower.image_size
    native = max(size) if isinstance(size, tuple | list) else int(size)
    if image_size not in {None, native}:
        raise UserError(
            f"{who}: image_size {image_size}: OpenCLIP's models take their own {native} only; give a CLIP in "
            "transformers' layout for other sizes"
        )
    usual = Normalization(tuple(tower.image_mean), tuple(tower.image_std))
    resample = _resample(getattr(tower, "preprocess_cfg", {}).get("interpolation"))
    return around(who, tower, native, usual, given, resample)


def _resample(stated: object) -> Resample:
    """How a library resizes images: bicubic, which both take, where it says nothing that is known here."""
    return "bilinear" if stated == "bilinear" else "nearest" if stated == "nearest" else "bicubic"


def _weights(open_clip: Any, who: str, name: str) -> tuple[str, str | None]:
    """OpenCLIP's name of the model, and of its weights."""
    if name.startswith(("hf-hub:", "local-dir:")):
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


def _create(who: str, create: Callable[[], nn.Module]) -> nn.Module:
    try:
        return create()
    except Exception as error:  # the library's own code: an unknown name, no connection
        raise UserError(f"{who}: cannot be loaded: {first_line(error)}") from error
