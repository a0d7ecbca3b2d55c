"""How far two ways to one model are apart, and at which step of the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from mergerisk.checking.own import open_picture
from mergerisk.checking.probing import seen_by
from mergerisk.errors import UserError, described

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mergerisk.checking.as_loaded import Reading
    from mergerisk.checking.own import OwnWay

FILE, PIXELS, MODEL = "reading the file", "resizing and normalising", "the model itself"
"""The steps from a file to what a model says, in their order."""


@dataclass(frozen=True)
class Steps:
    """How much of a difference arises at which step, by swapping one step at a time.

    Attributes:
        sizes: mean difference (see :func:`difference`) by step; NaN where the library's model does not take
            mergerisk's pixels.
        renormalised: the same of :data:`PIXELS`, once mergerisk's pixels have the library's mean and standard
            deviation.
        in_float32: the same of :data:`MODEL`, with the library's model in float32.
    """

    sizes: dict[str, float]
    renormalised: float
    in_float32: float


def difference(own: torch.Tensor, ours: torch.Tensor, *, logits: bool) -> torch.Tensor:
    """Length of the difference of outputs, as a share of the length of the library's, N; both N × K.

    Of logits each image's mean is taken off first, since it changes no probability. Where the library's have no
    length, any difference is 1.
    """
    own, ours = own.double(), ours.double()
    if logits and own.shape[1] > 1:
        own, ours = (values - values.mean(dim=1, keepdim=True) for values in (own, ours))
    apart, whole = (own - ours).norm(dim=1), own.norm(dim=1)
    return torch.where(whole == 0, (apart > 0).double(), apart / whole)


def own_outputs(name: str, own: OwnWay, paths: Sequence[Path]) -> torch.Tensor:
    """What the library's way says of files, N × K.

    Raises:
        UserError: it fails on one, or says NaN.
    """
    found = []
    for path in paths:
        try:
            found.append(_answer(own, own.prepare(open_picture(path))))
        except UserError:
            raise
        except Exception as error:  # the library's code, or the user's
            raise UserError(f"{name}: in its own library's way it fails on {path}: {described(error)}") from error
    return _whole(name, "in its own library's way", found)


def our_outputs(name: str, reading: Reading, paths: Sequence[Path]) -> torch.Tensor:
    """What a reading says of files, N × K.

    Raises:
        UserError: it fails on one, or says NaN.
    """
    found = []
    for path in paths:
        try:
            with torch.no_grad():
                found.append(reading.module(reading.read(path)).float())
        except UserError:
            raise
        except Exception as error:  # the user's code, or a size that a model does not take
            raise UserError(f"{name}: as mergerisk loads it, it fails on {path}: {described(error)}") from error
    return _whole(name, "as mergerisk loads it", found)


def take_steps(own: OwnWay, reading: Reading, paths: Sequence[Path], own_scale: Scale, our_scale: Scale) -> Steps:
    """Swap one step at a time on some images, and see how much of the difference each makes.

    Args:
        own: the library's way.
        reading: mergerisk's.
        paths: the images.
        own_scale: mean and standard deviation of the library's pixels, per channel; None if not known.
        our_scale: of mergerisk's.
    """
    sizes: dict[str, list[float]] = {step: [] for step in (FILE, PIXELS, MODEL)}
    renormalised, in_float32 = [], []

    def apart(one: torch.Tensor, other: torch.Tensor) -> float:
        return float(difference(one, other, logits=own.logits))

    for path in paths:
        pixels = reading.read(path)
        with torch.no_grad():
            ours = reading.module(pixels).float()
        file = _answer(own, own.prepare(open_picture(path)))
        read = _answer(own, own.prepare(_picture(pixels)))
        sizes[FILE].append(apart(file, read))
        seen = seen_by(reading, pixels)
        swapped = None if seen is None else _attempt(own, seen)
        sizes[PIXELS].append(float("nan") if swapped is None else apart(read, swapped))
        sizes[MODEL].append(float("nan") if swapped is None else apart(swapped, ours))
        if swapped is None or seen is None:
            continue
        if own_scale is not None and our_scale is not None:
            (mean, std), (our_mean, our_std) = (
                [torch.tensor(values).view(3, 1, 1) for values in scale] for scale in (own_scale, our_scale)
            )
            renormalised.append(apart(read, _answer(own, (seen * our_std + our_mean - mean) / std)))
        dtype = _dtype(own)
        if dtype not in {None, torch.float32}:
            own.module.float()
            in_float32.append(apart(_answer(own, seen), ours))
            own.module.to(dtype)
    return Steps({step: _mean(found) for step, found in sizes.items()}, _mean(renormalised), _mean(in_float32))


Scale = tuple[tuple[float, ...], tuple[float, ...]] | None
"""Mean and standard deviation, per channel."""


def _answer(own: OwnWay, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return own.answer(pixels)


def _attempt(own: OwnWay, pixels: torch.Tensor) -> torch.Tensor | None:
    """What the library's model says of pixels; None if it does not take them."""
    try:
        return _answer(own, pixels)
    except Exception:  # its own code: another size
        return None


def _dtype(own: OwnWay) -> torch.dtype | None:
    return next((tensor.dtype for tensor in own.module.parameters()), None)


def _picture(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray((255 * pixels[0]).round().byte().permute(1, 2, 0).contiguous().numpy())


def _whole(name: str, how: str, found: Sequence[torch.Tensor]) -> torch.Tensor:
    outputs = torch.cat(list(found))
    if not bool(torch.isfinite(outputs).all()):
        raise UserError(f"{name}: {how}, it says NaN or infinity; check its weights")
    return outputs


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
