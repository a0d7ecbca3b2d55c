"""Modules that the user's own code makes, written ``package.module:factory``, and encoders around them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mergerisk.errors import UserError, described
from mergerisk.models.core.checks import check_finite, dtype_name, freeze
from mergerisk.models.core.encoder import Encoder
from mergerisk.models.core.preprocessing import Normalization, Preprocessing, Resizing
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.sources.reading import read_state
from mergerisk.named_callables import load_callable
from mergerisk.tasks.digests import file_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mergerisk.models.core.stated import Resample, StatedPreprocessing

UNTOUCHED = Normalization((0.0,) * 3, (1.0,) * 3)
"""Pixels in [0, 1] as they are."""


def build(name: str) -> tuple[nn.Module, Callable[..., Any]]:
    """The module that a factory returns, and the factory.

    Weights it draws from PyTorch's global generator are the same in every process.

    Raises:
        UserError: the factory cannot be imported, fails, or returns something else.
    """
    factory = load_callable(name)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = factory()
    except Exception as error:  # the user's own code
        raise UserError(f"{name}: cannot be loaded: {described(error)}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{name}: must return a torch.nn.Module, got {type(made).__name__}")
    return made, factory


def module(name: str) -> nn.Module:
    """What a factory makes, in float32, frozen, in evaluation mode.

    Args:
        name: ``package.module:factory``; ``@weights.safetensors`` behind it is a file with all of the module's
            tensors, by the module's own names.

    Raises:
        UserError: see :func:`build`; weights that are not the module's, or with NaN.
    """
    callable_name, _, weights = name.partition("@")
    made = build(callable_name)[0].float()
    if weights:
        _load_weights(made, Path(weights).expanduser())
    freeze(made)
    check_finite(made.state_dict(), name)
    return made


def load(name: str, *, image_size: int | None = None, preprocessing: StatedPreprocessing | None = None) -> Encoder:
    """The encoder around what a factory makes.

    Args:
        name: ``package.module:factory``, a callable without arguments that returns a module from pixels in [0, 1],
            N × 3 × S × S, to features, N × width. The module's attribute ``image_size`` is S. Whatever else it
            calls its own, ``mean`` and ``std`` say, is its own business. ``@weights.safetensors`` behind the name
            is a file with all of the module's tensors, by the module's own names.
        image_size: S, instead of the module's own.
        preprocessing: what is done to pixels before the module sees them; nothing by default.

    Raises:
        UserError: see :func:`build`; weights that are not the module's; no S; or an output that is no features.
    """
    made = module(name)
    size = image_size or getattr(made, "image_size", None)
    if not isinstance(size, int) or size < 1:
        raise UserError(
            f"{name}: image_size is {size!r}; set it, or give the module an attribute image_size, the side of its "
            "images in pixels"
        )
    return around(name, made, size, UNTOUCHED, preprocessing)


def around(
    name: str,
    module: nn.Module,
    image_size: int,
    usual: Normalization,
    given: StatedPreprocessing | None = None,
    resample: Resample = "bilinear",
) -> Encoder:
    """An encoder around a module from normalised pixels to features, whose width is seen on one grey image.

    Args:
        name: how messages begin.
        module: the backbone.
        image_size: side of the images it expects; others are squeezed into it.
        usual: how it wants its pixels scaled.
        given: what the user says instead.
        resample: how images of another size are resized.

    Raises:
        UserError: the module fails on that image, or what it returns is not 1 × width; weights with NaN.
    """
    freeze(module)
    check_finite(module.state_dict(), name)
    prepared = Preprocessing(Resizing((image_size, image_size), resample=resample), usual).stated(given)
    try:
        with torch.no_grad():
            output = module(torch.full((1, 3, image_size, image_size), 0.5))
    except Exception as error:  # the user's own code
        raise UserError(f"{name}: fails on an image of {image_size} × {image_size}: {described(error)}") from error
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != 1:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UserError(f"{name}: must return features, images × width, got {shape} for one image")
    if not output.is_floating_point():
        raise UserError(f"{name}: must return features as floats, got {dtype_name(output.dtype)}")
    return Encoder(
        module,
        width=output.shape[1],
        image_size=image_size,
        mean=prepared.normalization.mean,
        std=prepared.normalization.std,
        resizing=prepared.resizing,
    ).eval()


def identity(name: str) -> dict[str, str]:
    """SHA-256 of the source files the factory is defined in, and of the weights.

    Weights are those of the file if one is named, else the tensors of the module as it is made.
    """
    callable_name, _, weights = name.partition("@")
    factory = load_callable(callable_name)
    found = {"factory": callable_name}
    for module in dict.fromkeys((callable_name.partition(":")[0], factory.__module__)):
        source = getattr(sys.modules.get(module), "__file__", None)
        if source is not None:
            found[f"source of {module}"] = file_digest(Path(source))
    if weights:
        return found | {"weights": file_digest(Path(weights).expanduser())}
    return found | {"weights": state_digest(build(callable_name)[0].state_dict())}


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes, dtypes and values of tensors on the CPU."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load_weights(module: nn.Module, file: Path) -> None:
    """All of a module's tensors, by its own names, and no others."""
    checkpoint = Checkpoint(file)
    own = module.state_dict()
    if extra := checkpoint.specs.keys() - own.keys():
        raise UserError(f"{file}: tensor {min(extra)!r} is none of the {len(own)} of {type(module).__name__}")
    module.load_state_dict(read_state(own, {}, checkpoint, str(file)), strict=True)
