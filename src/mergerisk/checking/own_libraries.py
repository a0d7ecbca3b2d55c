"""Models of timm and OpenCLIP in those libraries' own way."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from mergerisk.checking.own import PROMPT, UNSTATED, OwnWay
from mergerisk.errors import UserError, described
from mergerisk.tasks.class_names import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image


def timm_way(name: str) -> OwnWay:
    """A pretrained model of timm with its own head and its own evaluation transform.

    Args:
        name: a name that ``timm.create_model`` knows.

    Raises:
        UserError: timm cannot be imported, or does not have it.
    """
    timm = _library("timm")
    who = f"timm:{name}"
    try:
        model: Any = timm.create_model(name, pretrained=True).requires_grad_(False).eval()
        config = timm.data.resolve_model_data_config(model)
        transform = timm.data.create_transform(**config, is_training=False)
    except Exception as error:  # the library's own code: an unknown name, no connection
        raise UserError(f"{who}: timm itself cannot load it: {described(error)}") from error
    return OwnWay(
        "timm's create_model and create_transform",
        True,
        _through(transform),
        model,
        model,
        resampling=str(config.get("interpolation", UNSTATED)),
        side=max(config["input_size"][1:]),
    )


def open_clip_way(name: str, class_names: Sequence[str] | None) -> OwnWay:
    """A CLIP of OpenCLIP with its own transform: zero-shot if there are class names, else its image embedding.

    Args:
        name: of the model and, behind a slash, of its weights.
        class_names: in the order of the labels.

    Raises:
        UserError: OpenCLIP cannot be imported, or does not have it.
    """
    open_clip = _library("open_clip")
    who = f"open_clip:{name}"
    architecture, weights = _weights(open_clip, name)
    try:
        made: Any = open_clip.create_model_and_transforms(architecture, pretrained=weights)
        model, transform = made[0].requires_grad_(False).eval(), made[2]
        text = None if class_names is None else _text(open_clip, model, architecture, class_names)
    except Exception as error:  # the library's own code
        raise UserError(f"{who}: OpenCLIP itself cannot load it: {described(error)}") from error

    def answer(pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model.encode_image(pixels).float()
        return found if text is None else F.normalize(found, dim=-1) @ text.T

    return OwnWay(
        "OpenCLIP's create_model_and_transforms",
        text is not None,
        _through(transform),
        answer,
        model,
        None if class_names is None else tuple(class_names),
        str(getattr(model.visual, "preprocess_cfg", {}).get("interpolation", UNSTATED)),
    )


def zero_shot_weight(own: OwnWay, name: str, class_names: Sequence[str]) -> torch.Tensor:
    """What image embeddings of length one are compared with, classes × width, exp(logit scale) in it."""
    open_clip = _library("open_clip")
    architecture, _ = _weights(open_clip, name)
    return _text(open_clip, own.module, architecture, class_names)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # torchvision fails with whatever its compiled part does
        extra = name.replace("_", "-")
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        why = "is not installed" if absent else f"cannot be imported: {described(error)}"
        raise UserError(
            f"{name} {why}; pip install 'mergerisk[{extra}]', with a torchvision that matches the installed torch"
        ) from error


def _weights(open_clip: Any, name: str) -> tuple[str, str | None]:
    """OpenCLIP's name of the model, and of its weights."""
    if name.startswith(("hf-hub:", "local-dir:")):
        return name, None
    architecture, _, weights = name.partition("/")
    known = list(open_clip.list_pretrained_tags_by_model(architecture))
    if not weights and len(known) == 1:
        return architecture, str(known[0])
    if weights not in known:
        raise UserError(
            f"open_clip:{name}: name one of its weights, open_clip:{architecture}/WEIGHTS: "
            f"{', '.join(known) or 'OpenCLIP has none of this name'}"
        )
    return architecture, weights


def _text(open_clip: Any, model: Any, architecture: str, class_names: Sequence[str]) -> torch.Tensor:
    tokenizer = open_clip.get_tokenizer(architecture)
    with torch.no_grad():
        embedded = model.encode_text(tokenizer([PROMPT.replace("{}", in_words(text)) for text in class_names]))
        weight: torch.Tensor = F.normalize(embedded.float(), dim=-1) * model.logit_scale.float().exp()
    return weight


def _through(transform: Any) -> Callable[[Image.Image], torch.Tensor]:
    def prepare(picture: Image.Image) -> torch.Tensor:
        pixels: torch.Tensor = transform(picture)
        return pixels[None].float()

    return prepare
