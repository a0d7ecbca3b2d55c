"""The settings of two ways to one model, side by side."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk.checking.probing import measure, seen_by
from mergerisk.models.core.checks import dtype_name
from mergerisk.models.core.encoder import Encoder

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

    from mergerisk.checking.as_loaded import Reading
    from mergerisk.checking.own import OwnWay
    from mergerisk.checking.probing import Preparation

NAMES = (
    "picture it gets",
    "pixels it sees",
    "part of the picture",
    "resampling",
    "mean",
    "standard deviation",
    "activation",
    "dtype",
    "classes",
)
"""In the order of the table."""

_UNKNOWN = "not known"
_SHOWN = 3
"""Classes named one by one."""


def own_settings(own: OwnWay, size: tuple[int, int], count: int) -> tuple[dict[str, str], Preparation | None]:
    """What the library's way does with pictures of a size, in words and as measured; ``count`` outputs."""
    prepared = measure(own.prepare, size)
    about = {"picture it gets": _by(size), "resampling": own.resampling}
    return about | _measured(prepared) | _model(own.module, own.class_names, count, logits=own.logits), prepared


def our_settings(
    reading: Reading, size: tuple[int, int], count: int, *, logits: bool
) -> tuple[dict[str, str], Preparation | None]:
    """What a reading does with pictures of a size, in words and as measured; ``count`` outputs."""

    def prepare(picture: Image.Image) -> torch.Tensor | None:
        return seen_by(reading, reading.read(picture))

    prepared = measure(prepare, size)
    height, width = size
    read = reading.read(_grey(height, width))
    about = {"picture it gets": _by((read.shape[2], read.shape[3])), "resampling": _resampling(reading.module)}
    return about | _measured(prepared) | _model(reading.inner, reading.class_names, count, logits=logits), prepared


def _grey(height: int, width: int) -> Image.Image:
    from PIL import Image

    return Image.fromarray(np.full((height, width, 3), 128, np.uint8))


def _measured(prepared: Preparation | None) -> dict[str, str]:
    if prepared is None:
        return dict.fromkeys(("pixels it sees", "part of the picture", "mean", "standard deviation"), _UNKNOWN)
    left, top, right, bottom = (round(100 * share) for share in prepared.part)
    return {
        "pixels it sees": _by(prepared.size),
        "part of the picture": f"{left} to {right} % × {top} to {bottom} %",
        "mean": ", ".join(f"{value:.3f}" for value in prepared.mean),
        "standard deviation": ", ".join(f"{value:.3f}" for value in prepared.std),
    }


def _model(module: nn.Module, class_names: tuple[str, ...] | None, count: int, *, logits: bool) -> dict[str, str]:
    dtypes = sorted({dtype_name(tensor.dtype) for tensor in module.parameters() if tensor.is_floating_point()})
    return {
        "activation": _activation(module),
        "dtype": ", ".join(dtypes) or _UNKNOWN,
        "classes": _classes(class_names, count, logits=logits),
    }


def _activation(module: nn.Module) -> str:
    config: Any = getattr(module, "config", None)
    config = getattr(config, "vision_config", config)
    return str(getattr(config, "hidden_act", _UNKNOWN))


def _classes(names: tuple[str, ...] | None, count: int, *, logits: bool) -> str:
    if not logits:
        return f"none; {count} features"
    if names is None:
        return f"{count}, not named"
    shown = ", ".join(names[:_SHOWN])
    return f"{len(names)}: {shown}{', …' if len(names) > _SHOWN else ''}"


def _resampling(module: nn.Module) -> str:
    """As mergerisk's own preprocessing states it; bilinear where there is no choice; none in a user's own module,
    which resizes as it likes."""
    for part in module.modules():
        for name in ("resizing", "preprocessing"):
            about: Any = getattr(part, name, None)
            if is_dataclass(about):
                sized = getattr(about, "size", None) is not None
                return str(getattr(about, "resample", "bilinear")) if sized else "none"
    return "bilinear" if any(isinstance(part, Encoder) for part in module.modules()) else "none"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"
