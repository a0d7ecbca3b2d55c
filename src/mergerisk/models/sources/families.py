"""The families of transformers models that can be backbones.

A new one is an entry of :data:`FAMILIES`: which class loads it, what its features are, and what sizes of images it
takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from mergerisk.errors import UserError
from mergerisk.models.core.checks import check_finite
from mergerisk.models.core.preprocessing import (
    Normalization,
)
from mergerisk.models.inside.class_token import class_token_alone
from mergerisk.models.sources.vit import (
    class_token,
    class_token_resized,
    class_token_unmasked,
    mean_token,
    mean_token_resized,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mergerisk.models.core.stated import Resample
    from mergerisk.models.on_disk.checkpoints import Checkpoint

    Features = Callable[[nn.Module, torch.Tensor], torch.Tensor]

VISUAL_PROJECTION = "visual_projection.weight"

_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_EFFICIENTNET = Normalization(_IMAGENET.mean, (0.47853944**2, 0.4732864**2, 0.47434163**2))
"""Its processor divides by the standard deviation twice."""
_CLIP = Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Family:
    """What is particular to one ``model_type``.

    Attributes:
        model: transformers' class that is merged: without heads and projections.
        features: configuration, checkpoint, whether images have another size than the pretrained → what is taken
            from the model (see :class:`Encoder`), and its width.
        options: further arguments of the class.
        normalization: of pixels, where no ``preprocessor_config.json`` says.
        resample: how images are resized, likewise.
        patches: whether images are cut into patches, which must divide them.
        any_size: whether all image sizes are alike to it, so that its preprocessor says which it was used with.
        class_token: whether its features are the class token alone, the first that its last block puts out.
        classifier: name of the linear layer that classifies its features in a checkpoint for image classification;
            empty if there is none such.
    """

    model: str
    features: Callable[[Any, Checkpoint, bool], tuple[Features, int]]
    options: Mapping[str, Any] = field(default_factory=dict)
    normalization: Normalization = _IMAGENET
    resample: Resample = "bilinear"
    patches: bool = True
    any_size: bool = False
    class_token: bool = False
    classifier: str = "classifier"


class ClipFeatures(nn.Module):
    """CLIP's image embedding, not normalised (Radford et al. 2021, arXiv 2103.00020, figure 3).

    Args:
        projection: embedding × width of the class token, frozen, shared by base, experts and merges; None for the
            class token itself, after the last layer norm.
        resized: whether position embeddings are interpolated (bicubic) to another grid of patches.
    """

    projection: torch.Tensor | None

    def __init__(self, projection: torch.Tensor | None, *, resized: bool) -> None:
        super().__init__()
        self.resized = resized
        # A buffer: fine-tuning trains parameters.
        self.register_buffer("projection", projection, persistent=False)

    def forward(self, backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels, N × 3 × S × S → features, N × embedding."""
        with class_token_alone(backbone):
            output = backbone(pixel_values=pixels, interpolate_pos_encoding=self.resized)
        token: torch.Tensor = output.pooler_output
        return token if self.projection is None else F.linear(token, self.projection)


def class_and_mean_token(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The class token beside the mean of the patches' tokens, N × 2 width, which DINOv2's own classifier reads.

    Position embeddings are interpolated to whatever grid of patches there is; register tokens are left out.
    """
    tokens: torch.Tensor = backbone(pixel_values=pixels).last_hidden_state
    first = 1 + getattr(backbone.config, "num_register_tokens", 0)
    return torch.cat([tokens[:, 0], tokens[:, first:].mean(dim=1)], dim=1)


def pooled(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The last feature map or tokens, as the model pools them, N × width."""
    found: torch.Tensor = backbone(pixel_values=pixels).pooler_output
    return found.flatten(1)


def pooled_resized(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The same, with position embeddings interpolated to another grid of patches."""
    found: torch.Tensor = backbone(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
    return found


def _vit(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:  # noqa: ARG001
    return class_token_resized if resized else class_token, int(config.hidden_size)


def _dinov2(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:  # noqa: ARG001
    return class_and_mean_token, 2 * int(config.hidden_size)


def _convolutional(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:  # noqa: ARG001
    return pooled, int(config.hidden_sizes[-1])


def _pooled_tokens(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:  # noqa: ARG001
    return pooled, int(config.hidden_size)


def _swin(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:  # noqa: ARG001
    # Without absolute position embeddings there is nothing to interpolate.
    return pooled_resized if resized and config.use_absolute_embeddings else pooled, int(config.hidden_size)


def _efficientnet(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:  # noqa: ARG001
    return pooled, int(config.hidden_dim)


def _mobilenet_v2(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:  # noqa: ARG001
    from transformers.models.mobilenet_v2.modeling_mobilenet_v2 import apply_depth_multiplier

    fixed = config.finegrained_output and config.depth_multiplier < 1
    return pooled, _MOBILENET_WIDTH if fixed else int(apply_depth_multiplier(config, _MOBILENET_WIDTH))


def _siglip(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:
    """The image embedding; of an image classifier what its head reads, the mean of the patches' tokens."""
    if "classifier.weight" in checkpoint or not config.vision_use_head:
        return mean_token_resized if resized else mean_token, int(config.hidden_size)
    return pooled_resized if resized else pooled, int(config.hidden_size)


def _vit_mae(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:  # noqa: ARG001
    return class_token_unmasked, int(config.hidden_size)


def _clip(config: Any, checkpoint: Checkpoint, resized: bool) -> tuple[Features, int]:
    if VISUAL_PROJECTION not in checkpoint:
        return ClipFeatures(None, resized=resized), int(config.hidden_size)
    projection = checkpoint[VISUAL_PROJECTION].float()
    if projection.ndim != 2 or projection.shape[1] != config.hidden_size:
        raise UserError(
            f"{checkpoint.path}: {VISUAL_PROJECTION!r} has shape {tuple(projection.shape)}, which does not fit "
            f"a class token of {config.hidden_size}"
        )
    check_finite({VISUAL_PROJECTION: projection}, str(checkpoint.path))
    return ClipFeatures(projection, resized=resized), len(projection)


_MOBILENET_WIDTH = 1280
"""Features of MobileNetV2 at a depth multiplier of 1."""

_CLIP_VISION = Family(
    "CLIPVisionModel", _clip, normalization=_CLIP, resample="bicubic", class_token=True, classifier=""
)
_SIGLIP_VISION = Family("SiglipVisionModel", _siglip, normalization=Normalization(), resample="bicubic")

FAMILIES: Mapping[str, Family] = {
    "beit": Family("BeitModel", _pooled_tokens, normalization=Normalization()),
    "clip": _CLIP_VISION,
    "clip_vision_model": _CLIP_VISION,
    "vit": Family("ViTModel", _vit, {"add_pooling_layer": False}, Normalization(), class_token=True),
    "deit": Family("DeiTModel", _vit, {"add_pooling_layer": False}, resample="bicubic", class_token=True),
    "dinov2": Family("Dinov2Model", _dinov2, resample="bicubic", any_size=True),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel", _dinov2, resample="bicubic", any_size=True),
    "convnext": Family("ConvNextModel", _convolutional, resample="bicubic", patches=False, any_size=True),
    "convnextv2": Family("ConvNextV2Model", _convolutional, resample="bicubic", patches=False, any_size=True),
    "resnet": Family(
        "ResNetModel",
        _convolutional,
        resample="bicubic",
        patches=False,
        any_size=True,
        classifier="classifier.1",
    ),
    "regnet": Family(
        "RegNetModel",
        _convolutional,
        resample="bicubic",
        patches=False,
        any_size=True,
        classifier="classifier.1",
    ),
    "efficientnet": Family(
        "EfficientNetModel",
        _efficientnet,
        normalization=_EFFICIENTNET,
        resample="nearest",
        patches=False,
        any_size=True,
    ),
    "mobilenet_v2": Family(
        "MobileNetV2Model", _mobilenet_v2, normalization=Normalization(), patches=False, any_size=True
    ),
    "siglip": _SIGLIP_VISION,
    "siglip_vision_model": _SIGLIP_VISION,
    "swin": Family("SwinModel", _swin, resample="bicubic"),
    "vit_mae": Family("ViTMAEModel", _vit_mae, class_token=True, classifier=""),
}
"""By ``model_type`` in ``config.json``."""


def family_of(who: str, config: Mapping[str, Any]) -> Family:
    """The family of the model that a ``config.json`` describes.

    Raises:
        UserError: it is none of :data:`FAMILIES`.
    """
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        if "architecture" in config and "model_type" not in config:  # timm's layout, which transformers has not
            raise UserError(f"{who}: a model of timm, not of transformers; write timm:{config['architecture']}")
        supported = ", ".join(repr(name) for name in sorted(FAMILIES))
        raise UserError(
            f"{who}: model_type is {kind!r}; supported here: {supported}; others as package.module:factory"
        )
    return FAMILIES[kind]
