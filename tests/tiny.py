"""Small tasks, encoders and studies for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from torch import nn

from mergerisk.models import Encoder, load_encoder
from mergerisk.tasks import Split, Task

if TYPE_CHECKING:
    from pathlib import Path

STUDY: dict[str, Any] = {
    "name": "tiny",
    "tasks": ["stripes.npz", "blobs.npz"],
    "experts": {"fine_tune": {"epochs": 2, "learning_rate": 0.003, "batch_size": 16}},
    "merging": [
        "weight_averaging",
        {"method": "task_arithmetic", "scaling": 0.4},
        {"method": "adamerging", "steps": 3, "batch_size": 4},
        {"method": "ties+surgery", "surgery": {"steps": 10}},
        {"method": "weight_averaging+surgery", "surgery": {"steps": 10}},
    ],
    "attacks": ["fgsm", "mi_fgsm", "di_fgsm"],
    "budgets": {"epsilon": ["2/255", "8/255", "24/255"], "steps": 3},
    "images_per_task": 12,
}


def arrays(kind: str, seed: int = 0, per_class: int = 30) -> dict[str, np.ndarray[Any, Any]]:
    """Three classes of noisy 16×16 images that a small model can learn: stripes' direction, or blobs' place."""
    random = np.random.default_rng(seed)
    images, labels = [], []
    rows, columns = np.mgrid[0:16, 0:16]
    for index in range(3 * per_class):
        label = index % 3
        if kind == "stripes":
            ramp = [rows, columns, rows + columns][label]
            picture = 0.5 + 0.4 * np.sin(ramp * 1.2 + random.uniform(0, 6))
        else:
            centre = [(4, 4), (4, 12), (12, 8)][label] + random.normal(0, 1, 2)
            picture = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / 10)
        noisy = picture[..., None] + random.normal(0, 0.1, (16, 16, 3))
        images.append((noisy.clip(0, 1) * 255).astype(np.uint8))
        labels.append(label)
    split = np.array([(0, 0, 1)[(index // 3) % 3] for index in range(3 * per_class)])
    return {"images": np.stack(images), "labels": np.array(labels), "split": split}


MINIMAL: dict[str, Any] = {
    "backbone": "starter-vit",
    "tasks": ["digits"],
    "merging": ["ties"],
    "attacks": ["fgsm"],
    "budgets": {"epsilon": ["2/255"]},
}
"""The least that a study file can say, over starter tasks."""


def write_tiny_study(folder: Path, backbone: Path, **changes: Any) -> Path:
    """Write two ``.npz`` tasks and a study over them into ``folder``; returns the study's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("stripes", "blobs"):
        np.savez(folder / f"{kind}.npz", **arrays(kind))
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"backbone": str(backbone)} | changes))
    return path


def save_tiny_vit(folder: Path) -> Path:
    """Save a randomly initialised ViT with 16×16 inputs."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def save_tiny_models(folder: Path, backbone: Path) -> Path:
    """``public.safetensors`` and ``released.safetensors``, which differ a little from the backbone, and ``other``,
    another architecture."""
    from safetensors.torch import save_file
    from transformers import ViTConfig, ViTModel

    state = load_encoder(str(backbone)).state()
    for name, seed in (("public", 5), ("released", 6)):
        draws = torch.Generator().manual_seed(seed)
        noisy = {key: t + 0.02 * torch.randn(t.shape, generator=draws) for key, t in state.items()}
        save_file({key: t.contiguous() for key, t in noisy.items()}, folder / f"{name}.safetensors")
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ViTModel(config, add_pooling_layer=False).save_pretrained(folder / "other")
    return folder


class TinyBackbone(nn.Module):
    """Two linear layers with a buffer of integers: pixels → 6 features."""

    counter: torch.Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.first = nn.Linear(3 * 4 * 4, 8)
        self.second = nn.Linear(8, 6)
        self.register_buffer("counter", torch.tensor(7))
        draws = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.second(torch.tanh(self.first(pixels.flatten(1))))
        return hidden


def tiny_encoder(seed: int = 0) -> Encoder:
    """An encoder of 4×4 images; different seeds differ little, as experts of one base do."""
    backbone = TinyBackbone(0)
    if seed:
        other = TinyBackbone(seed)
        with torch.no_grad():
            for mine, theirs in zip(backbone.parameters(), other.parameters(), strict=True):
                mine.add_(theirs, alpha=0.3)
    encoder = Encoder(backbone, width=6, image_size=4, mean=(0.5,) * 3, std=(0.5,) * 3)
    return encoder.requires_grad_(False).eval()


def tiny_task(name: str = "tiny", seed: int = 0, count: int = 40, classes: int = 4) -> Task:
    """Random 4×4 images whose label is the brightest quadrant."""
    draws = torch.Generator().manual_seed(seed)

    def split() -> Split:
        images = torch.rand(count, 3, 4, 4, generator=draws)
        quadrants = images.mean(dim=1).unflatten(1, (2, 2)).unflatten(3, (2, 2)).mean(dim=(2, 4))
        return Split(images, quadrants.flatten(1).argmax(dim=1) % classes)

    names = tuple(str(label) for label in range(classes))
    return Task(name, names, train=split(), test=split(), calibration=split())
