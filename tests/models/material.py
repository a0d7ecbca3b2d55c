"""Small models of every family, of transformers' own classes, with random weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
import transformers

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("cat", "dog", "owl")

_TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_VIT = _TRANSFORMER | {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
_DINOV2 = _TRANSFORMER | {"mlp_ratio": 2, "image_size": 32, "patch_size": 8}
_CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32}
_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
_REGNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8, "layer_type": "y"}
_EFFICIENTNET = {
    "image_size": 32,
    "width_coefficient": 0.0125,
    "hidden_dim": 16,
    "kernel_sizes": [3, 5],
    "in_channels": [32, 16],
    "out_channels": [16, 24],
    "depthwise_padding": [],
    "strides": [1, 2],
    "num_block_repeats": [1, 1],
    "expand_ratios": [1, 2],
}
_MOBILENET = {"image_size": 32, "depth_multiplier": 0.1, "finegrained_output": False}
_SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
SIGLIP_TEXT = _TRANSFORMER | {"intermediate_size": 48, "vocab_size": 300, "max_position_embeddings": 20}

CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", _VIT),
    "deit": ("DeiT", _VIT),
    "dinov2": ("Dinov2", _DINOV2),
    "dinov2_with_registers": ("Dinov2WithRegisters", _DINOV2 | {"num_register_tokens": 3}),
    "convnext": ("ConvNext", _CONVNEXT),
    "convnextv2": ("ConvNextV2", _CONVNEXT),
    "resnet": ("ResNet", _RESNET),
    "regnet": ("RegNet", _REGNET),
    "efficientnet": ("EfficientNet", _EFFICIENTNET),
    "mobilenet_v2": ("MobileNetV2", _MOBILENET),
    "swin": ("Swin", _SWIN),
    "beit": ("Beit", _VIT | {"use_relative_position_bias": True, "use_absolute_position_embeddings": True}),
    "siglip": ("Siglip", {"vision_config": _VIT, "text_config": SIGLIP_TEXT}),
}
"""``model_type`` → the start of its classes' names, and a small configuration."""

VOCABULARY = 300
END = VOCABULARY - 1


def drawn(model: torch.nn.Module, seed: int = 0, width: float = 0.2) -> torch.nn.Module:
    """The model with every tensor moved at random, so that none is zero or one throughout."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=draws) * width
                tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    return model.eval()


def save_classifier(folder: Path, family: str, seed: int = 0, **changes: Any) -> Path:
    """An image classifier of a family, as transformers saves it, with its preprocessor."""
    prefix, settings = CLASSIFIERS[family]
    config = getattr(transformers, f"{prefix}Config")(
        **settings | changes,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)},
    )
    drawn(getattr(transformers, f"{prefix}ForImageClassification")(config), seed).save_pretrained(folder)
    write_preprocessor(folder)
    return folder


def classifier(folder: Path, family: str) -> Any:
    """The same, loaded by transformers."""
    return getattr(transformers, f"{CLASSIFIERS[family][0]}ForImageClassification").from_pretrained(folder).eval()


def save_bare(folder: Path, family: str, seed: int = 0) -> Path:
    """A model without a classifier: SigLIP's vision tower, or a masked autoencoder with its decoder."""
    if family == "vit_mae":
        decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_intermediate_size": 16}
        model: Any = transformers.ViTMAEForPreTraining(
            transformers.ViTMAEConfig(**_VIT | decoder, decoder_num_attention_heads=2)
        )
    else:
        model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_VIT))
    drawn(model, seed).save_pretrained(folder)
    write_preprocessor(folder)
    return folder


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def write_preprocessor(folder: Path, **changes: Any) -> None:
    content = {"size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(content | changes))


def scaled(images: torch.Tensor) -> torch.Tensor:
    """Pixels as :func:`write_preprocessor` wants them."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def save_clip(folder: Path, seed: int = 0, *, tokenizer: bool = True, context: int = 20) -> Path:
    """A whole CLIP with towers of different widths, its preprocessor and its tokenizer, for prompts of ``context``
    tokens."""
    config = transformers.CLIPConfig(
        text_config=_TRANSFORMER
        | {
            "projection_dim": 16,
            "hidden_size": 24,
            "intermediate_size": 48,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": context,
            "bos_token_id": END - 1,
            "eos_token_id": END,
            "pad_token_id": END,
        },
        vision_config=_VIT | {"projection_dim": 16},
        projection_dim=16,
    )
    drawn(transformers.CLIPModel(config), seed).save_pretrained(folder)
    write_preprocessor(folder)
    if tokenizer:
        save_tokenizer(folder, context)
    return folder


def save_tokenizer(folder: Path, context: int = 20) -> None:
    """CLIP's byte-level tokenizer with a few merges, in the files of older repositories."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = sorted(bytes_to_unicode().values())[:140]
    merges = [("p", "h"), ("o", "t"), ("ph", "ot"), ("c", "a"), ("ca", "t</w>"), ("o", "f</w>")]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    numbers |= {"<|startoftext|>": END - 1, "<|endoftext|>": END}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": context})
    )


def images(side: int = 32, count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
