"""Modules that people write, which the situations of this folder name as factories."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = ("cat", "dog", "owl")


def net(outputs: int = 3, *, norm: bool = True, statistics: bool = True) -> nn.Sequential:
    """A small network of convolutions, always the same, 16 pixels to ``outputs`` numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, 2, 1), *([nn.BatchNorm2d(8, track_running_stats=statistics)] if norm else [])]
        made = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, outputs))
        for name, tensor in made.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_()
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
    return made.eval()


class Own(nn.Module):
    """Normalises inside, with attributes that are called what everybody calls them."""

    image_size = 16
    class_names = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net((images - self.mean) / self.std)
        return out


class Around(nn.Module):
    """A network that something is done to."""

    image_size = 16

    def __init__(self, module: nn.Module | None = None) -> None:
        super().__init__()
        self.net = module or net()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(images)
        return out


class Dropping(Around):
    """Dropout that evaluation mode does not turn off."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(images, 0.3, training=True))


class Training(Around):
    """A module that is in training mode whatever one says."""

    def train(self, mode: bool = True) -> Training:  # noqa: ARG002
        super().train(True)
        return self


class NoGradient(Around):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(images)


class HalfLogits(Around):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).half()


def own() -> nn.Module:
    return Own()


def plain() -> nn.Module:
    return Around()


def dropping() -> nn.Module:
    return Dropping()


def training() -> nn.Module:
    return Training()


def no_statistics() -> nn.Module:
    return Around(net(statistics=False))


def no_gradient() -> nn.Module:
    return NoGradient()


def one_logit() -> nn.Module:
    return net(1)


def script() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is deprecated, and people have them
        return torch.jit.script(net())


def half() -> nn.Module:
    return net().half()


def half_logits() -> nn.Module:
    return HalfLogits()
