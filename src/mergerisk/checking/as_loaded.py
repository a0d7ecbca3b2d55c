"""A model as mergerisk's commands load it and show it images: as ``attack`` does, and as a study does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn

from mergerisk.checking.own import as_pixels, pooled
from mergerisk.crafting.images import read_image
from mergerisk.errors import UserError
from mergerisk.models.core.classifier import Classifier, Head
from mergerisk.models.inside.class_token import all_tokens
from mergerisk.models.on_disk.filenames import CONFIG, read_json
from mergerisk.models.sources.classifiers import load_classifier
from mergerisk.models.sources.heads import checkpoint_head, zero_shot
from mergerisk.models.sources.loading import LIBRARIES, MODEL_TYPES, is_factory, load_encoder
from mergerisk.tasks.decoding import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mergerisk.checking.own import OwnWay
    from mergerisk.crafting.images import ImageFile
    from mergerisk.models.core.encoder import Encoder

ATTACK, STUDY = "attack", "study"
"""The commands whose loading is compared: ``mergerisk attack``; and studies, audits and merges."""

USUAL_SIDE = 224
"""Of the squares that a task's images become where they differ in size and the task names none."""


@dataclass(frozen=True)
class Reading:
    """One of mergerisk's ways to a model.

    Attributes:
        name: :data:`ATTACK` or :data:`STUDY`.
        read: file or picture → pixels in [0, 1], 1 × 3 × H × W, float32.
        module: those pixels → logits or features, N × K.
        inner: the part of it that gets pixels resized and normalised.
        class_names: one per logit; None if it names none.
    """

    name: str
    read: Callable[[Path | Image.Image], torch.Tensor]
    module: nn.Module
    inner: nn.Module
    class_names: tuple[str, ...] | None


class HiddenState(nn.Module):
    """A transformers backbone's last hidden state, pooled, as an encoder makes it on the way to its features."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            found.append(pooled(output.last_hidden_state))

        handle = self.encoder.backbone.register_forward_hook(keep)
        try:
            with all_tokens(self.encoder):
                self.encoder(images)
        finally:
            handle.remove()
        return found[0]


def open_readings(
    name: str,
    own: OwnWay,
    files: Sequence[ImageFile],
    *,
    folder: Path | None,
    image_size: int | None,
    size: int | None,
    offline: bool,
) -> tuple[list[Reading], list[str]]:
    """The ways in which mergerisk's commands use a model, and remarks on those in which they cannot.

    Args:
        name: the model.
        own: what it is compared with.
        files: the images, whose sizes say what a task makes of them.
        folder: where a transformers model is; None for another library's, and for a factory.
        image_size: of the backbone, as in a study; its own by default.
        size: of the task's images, as in a study.
        offline: take what comes from a hub from its cache only.

    Raises:
        UserError: there is no such way at all.
    """
    ways: dict[str, Callable[[], Reading]] = {}
    remarks: list[str] = []
    if folder is not None:
        kind = str(read_json(folder / CONFIG).get("model_type"))
        if own.logits and kind != "clip":
            ways[ATTACK] = lambda: _attack(name, offline)
        if kind in MODEL_TYPES:
            ways[STUDY] = lambda: _study(name, own, files, image_size, size, offline)
        else:
            remarks.append(f"in a study it cannot be a backbone: its model_type is {kind!r}")
    elif is_factory(name) and not of_library(name):
        if own.logits and "@" not in name:
            ways[ATTACK] = lambda: _attack(name, offline)
        if own.side is not None:
            ways[STUDY] = lambda: _study(name, own, files, image_size, size, offline)
        if not ways:
            raise UserError(
                f"{name}: gives features of images whose size is not known; add --image-size S, or give the "
                "module an attribute image_size"
            )
    else:
        ways[STUDY] = lambda: _study(name, own, files, image_size, size, offline)
    readings = []
    refused: UserError | None = None
    for where, way in ways.items():
        try:
            readings.append(way())
        except UserError as error:
            refused = error
            remarks.append(f"{WORDS[where]} it is refused: {error}")
    if not readings:
        raise refused or UserError(f"{name}: {'; '.join(remarks)}")
    return readings, remarks


WORDS = {ATTACK: "in attack", STUDY: "in a study"}
"""How they are called in tables and sentences."""


def of_library(name: str) -> bool:
    """Whether a name is that of a model of timm or OpenCLIP."""
    library, _, rest = name.partition(":")
    return library in LIBRARIES and bool(rest)


def _attack(name: str, offline: bool) -> Reading:
    loaded = load_classifier(name, offline=offline)
    inner = loaded.module if is_factory(name) else _inner(loaded.module)
    return Reading(ATTACK, _read_to_attack, loaded.module, inner, loaded.class_names)


def _read_to_attack(source: Path | Image.Image) -> torch.Tensor:
    return as_pixels(source) if isinstance(source, Image.Image) else read_image(source)[None]


def _study(
    name: str, own: OwnWay, files: Sequence[ImageFile], image_size: int | None, size: int | None, offline: bool
) -> Reading:
    encoder = load_encoder(name, image_size=image_size, offline=offline)
    sizes = {file.size for file in files}
    common = sizes.pop() if len(sizes) == 1 and size is None else None

    def read(source: Path | Image.Image) -> torch.Tensor:
        if isinstance(source, Image.Image) and common is not None:
            return as_pixels(source)
        bytes_ = decode(source, str(source), size=common, side=size or USUAL_SIDE)
        return torch.from_numpy(bytes_).permute(2, 0, 1)[None].float() / 255

    module, names = _with_head(name, own, encoder, offline)
    return Reading(STUDY, read, module.requires_grad_(False).eval(), encoder.backbone, names)


def _with_head(
    name: str, own: OwnWay, encoder: Encoder, offline: bool
) -> tuple[nn.Module, tuple[str, ...] | None]:
    """The encoder with the head that its model brings, whose logits the library's can be compared with."""
    library = name.partition(":")[0]
    if is_factory(name) and not of_library(name):
        return encoder, own.class_names
    if library == "timm" and of_library(name):
        head: Any = own.module.get_classifier()  # type: ignore[operator]
        if not isinstance(head, nn.Linear) or head.in_features != encoder.width:
            raise UserError(f"{name}: its head is no linear layer on its features, so it has none in a study")
        bias = torch.zeros(head.out_features) if head.bias is None else head.bias
        return Classifier(encoder, Head(head.weight, bias)), own.class_names
    if not own.logits:
        return (encoder if of_library(name) else HiddenState(encoder)), None
    if library == "open_clip" and of_library(name):
        from mergerisk.checking.own_libraries import zero_shot_weight

        weight = zero_shot_weight(own, name.partition(":")[2], own.class_names or ())
        return Classifier(encoder, Head(weight, torch.zeros(len(weight)), normalize=True)), own.class_names
    if hasattr(own.module, "text_model"):
        from mergerisk.checking.own import PROMPT

        return Classifier(
            encoder, zero_shot(name, own.class_names or (), [PROMPT], offline=offline)
        ), own.class_names
    found, names = checkpoint_head(name, offline=offline)
    return Classifier(encoder, found), names


def _inner(module: nn.Module) -> nn.Module:
    """The library's model inside a classifier; the module itself if there is none."""
    from transformers import PreTrainedModel

    return next((part for part in module.modules() if isinstance(part, PreTrainedModel)), module)
