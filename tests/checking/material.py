"""Models with planted faults, and pictures that tell them apart."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn

from tests.crafting.material import save_classifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
"""As :func:`tests.crafting.material.save_classifier` writes them."""


def save_model(folder: Path, **preprocessing: Any) -> Path:
    """A classifier of 16 × 16 pixels whose preprocessor has further fields."""
    save_classifier(folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | preprocessing))
    return folder


def save_half(source: Path, folder: Path) -> Path:
    """The same weights in bfloat16."""
    from transformers import AutoModelForImageClassification

    model: Any = AutoModelForImageClassification.from_pretrained(source)
    model.bfloat16().save_pretrained(folder)
    shutil.copy(source / "preprocessor_config.json", folder)
    return folder


def shades(folder: Path, names: tuple[str, str] = ("dark", "bright"), per_class: int = 4) -> Path:
    """Folders of dark and of bright pictures."""
    for name, base in zip(names, (40, 200), strict=True):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            Image.new("RGB", (16, 16), (base + index,) * 3).save(folder / name / f"{index}.png")
    return folder


class Changed(nn.Module):
    """A classifier that gets pixels which something was done to after they were normalised, or before."""

    def __init__(self, model: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.model = model
        self.change = change

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=self.change(images)).logits
        return logits


def normalised(images: torch.Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> torch.Tensor:
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def features() -> nn.Module:
    """Five features of 16 × 16 pixels, which it does not say."""
    made = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
    return made


def backbone() -> nn.Module:
    """The same, and it does."""
    made = features()
    made.image_size = 16  # type: ignore[assignment]
    return made


def unsteady() -> nn.Module:
    """Fails on every picture."""
    return nn.Linear(7, 2)
