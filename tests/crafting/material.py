"""A tiny classifier in transformers' layout, and folders of pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("cat", "red fox, Vulpes vulpes", "3d printer")


def save_classifier(folder: Path, *, seed: int = 0, names: tuple[str, ...] = NAMES, size: int = 16) -> Path:
    """A ViT of random weights, large enough that pictures differ in what it says."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=size,
        patch_size=4,
        initializer_range=0.2,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ViTForImageClassification(config).save_pretrained(folder)
    about = {"size": {"height": size, "width": size}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder


def picture(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    """Coloured bars and noise: uint8, height × width × 3."""
    random = np.random.default_rng(seed)
    bars = random.uniform(0, 255, (1, width, 3)) + random.normal(0, 25, (height, width, 3))
    return bars.clip(0, 255).astype(np.uint8)


def save_pictures(folder: Path, per_class: int = 4, size: tuple[int, int] = (16, 16)) -> Path:
    """One folder per class of :data:`NAMES`, by different ways to name it."""
    for label, name in enumerate(("cat", "Red_Fox", "2")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            Image.fromarray(picture(100 * label + index, *size)).save(folder / name / f"{index}.png")
    return folder


class Brightness(nn.Module):
    """Two classes: dark and bright, by the mean of all pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean(dim=(1, 2, 3))
        return 40 * torch.stack([0.5 - mean, mean - 0.5], dim=1)


def named() -> nn.Module:
    """Dark and bright, by name."""
    made = Brightness()
    made.class_names = ("dark", "bright")  # type: ignore[assignment]
    return made


def unnamed() -> nn.Module:
    return Brightness()


def broken() -> nn.Module:
    raise KeyError("weights")


def nothing() -> str:
    return "a module"
