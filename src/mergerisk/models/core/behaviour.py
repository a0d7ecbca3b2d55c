"""Whether a model is a function of the image it is shown: tried on a few, before anything expensive."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from mergerisk.errors import UserError, first_line
from mergerisk.models.core.checks import dtype_name
from mergerisk.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_IMAGES = 3
"""A batch of one or two has batch statistics that some layers refuse, or that are zero."""

_TOLERANCE = 1e-3
"""Of the largest value, as far as two passes of one image may lie apart.

Other shapes of a batch are summed in another order. A sum of n products in float32 is off by about √n · 2⁻²⁴ of
its size; over 100 layers of 10,000 products, which is more than models have, by 100 · 100 · 6e-8 = 6e-4. What
depends on the batch, or draws, moves by about as much as images differ.
"""


def check_behaviour(
    call: Callable[[torch.Tensor], object],
    size: tuple[int, int],
    who: str,
    *,
    what: str = "logits",
    gradient: bool = True,
    device: torch.device | str = "cpu",
) -> int:
    """See that a model says the same of the same image, whatever else is in the batch, and gives a gradient.

    PyTorch's generators are left as they were.

    Args:
        call: the model, in evaluation mode, on a batch N × 3 × H × W in [0, 1].
        size: height and width of the images to try.
        who: how messages begin.
        what: the model gives: logits or features.
        gradient: whether it has to give a gradient with respect to its images.
        device: of the images.

    Returns:
        The number of classes, or of features.

    Raises:
        UserError: it fails; gives something else than images × numbers, in half precision, with NaN; draws at
            random; depends on the batch; has one logit; or lets no gradient through.
    """
    images = _pictures(size).to(device)
    with _untouched(torch.device(device)):
        first = _answer(call, images, who, what)
        if what == "logits" and first.shape[1] == 1:
            raise UserError(
                f"{who}: has one logit, and one number is no choice of class; return two, such as "
                "torch.cat([-logit, logit], dim=1) / 2"
            )
        near = _TOLERANCE * float(first.abs().max())
        again = _answer(call, images, who, what)
        if float((again - first).abs().max()) > near:
            raise DrawsError(
                f"{who}: says something else of the same images at every call: it draws at random, or changes as "
                "it is used; make it repeat itself in evaluation mode"
            )
        alone = _answer(call, images[:1], who, what, "one image alone")
        if float((alone - first[:1]).abs().max()) > near:
            raise UserError(
                f"{who}: what it says of an image depends on the others in the batch; do its layers use a batch's "
                "statistics, such as BatchNorm in training mode or without running statistics?"
            )
        if gradient:
            _check_gradient(call, images[:1], who, what)
    return int(first.shape[1])


class DrawsError(UserError):
    """A model says something else of the same images at every call."""


class Averaged(nn.Module):
    """The mean of what a model that draws at random says under fixed draws, the same for every image.

    Images are shown one by one, so that nothing depends on the batch. PyTorch's generators alone are seeded, and
    left as they were.

    Args:
        module: pixels in [0, 1] → logits.
        samples: how many draws.
        seed: that they follow from.
    """

    def __init__(self, module: nn.Module, samples: int, seed: int) -> None:
        super().__init__()
        self.module = module
        self.seeds = [derive_seed(seed, "samples", str(number)) for number in range(samples)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × 3 × H × W in [0, 1] → logits, N × classes."""
        return torch.cat([self._of_one(image) for image in images.split(1)])

    def _of_one(self, image: torch.Tensor) -> torch.Tensor:
        said = []
        with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
            for seed in self.seeds:
                torch.manual_seed(seed)
                said.append(self.module(image))
        return torch.stack(said).mean(dim=0)


def _pictures(size: tuple[int, int]) -> torch.Tensor:
    """Images of different brightness with noise on them, always the same."""
    draws = torch.Generator().manual_seed(0)
    brightness = torch.tensor([0.5, 0.2, 0.8]).view(_IMAGES, 1, 1, 1)
    return (brightness + 0.2 * torch.randn(_IMAGES, 3, *size, generator=draws)).clamp(0, 1)


def _answer(
    call: Callable[[torch.Tensor], object], images: torch.Tensor, who: str, what: str, shown: str = ""
) -> torch.Tensor:
    try:
        with torch.no_grad():
            found = call(images)
    except Exception as error:  # the user's own code
        height, width = images.shape[-2:]
        shown = shown or f"an image of {height} × {width} pixels"
        raise UserError(f"{who}: fails on {shown}: {first_line(error)}") from error
    wanted = "images × classes" if what == "logits" else "images × width"
    if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != len(images):
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise UserError(f"{who}: must return {what}, {wanted}, got {shape} for {len(images)} image(s)")
    if found.dtype not in {torch.float32, torch.float64}:
        raise UserError(
            f"{who}: must return {what} in float32, got {dtype_name(found.dtype)}; end its forward with .float()"
        )
    if bool(found.isnan().any()):
        raise UserError(f"{who}: its {what} hold NaN; check its weights")
    return found.nan_to_num(posinf=0.0, neginf=0.0)  # a class that is ruled out, say


def _check_gradient(call: Callable[[torch.Tensor], object], image: torch.Tensor, who: str, what: str) -> None:
    asked = image.clone().requires_grad_()
    reason = ""
    try:
        with torch.enable_grad():
            found = call(asked)
            assert isinstance(found, torch.Tensor), "as before"
            if found.requires_grad:
                torch.autograd.grad(found.sum(), asked)
                return
    except RuntimeError as error:  # of autograd: a step without a derivative, tensors of inference mode
        reason = f" ({first_line(error)})"
    raise UserError(
        f"{who}: gives no gradient of its {what} with respect to the image{reason}, and attacks need one; take "
        "torch.no_grad, inference_mode, detach or rounding out of its forward"
    )


@contextmanager
def _untouched(device: torch.device) -> Iterator[None]:
    """PyTorch's generators as they were, afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode(False):
        yield
