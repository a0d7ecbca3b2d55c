"""Images in other styles, by a network that the user brings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from pydantic_core import ArgsKwargs

from mergerisk.attacks.gradient_sign import MIFGSM
from mergerisk.attacks.parts import InputTransform
from mergerisk.errors import UserError, described
from mergerisk.memory import ran_out_of_memory
from mergerisk.models.sources.factories import identity, module
from mergerisk.validation import Share, hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from mergerisk.attacks.attack import Problem

_SIDE = 224
"""Of the grey image on which a network is tried that says no ``image_size``."""


@hyperparameters
class STM(MIFGSM):
    """Style transfer method: images are mixed with themselves in drawn styles, and with noise (Ge et al. 2023,
    arXiv 2308.10601; as the authors' code, TransferAttack's, computes it).

    With S the style network, views are γ x + (1 − γ) S(x, z) + r: z standard normal, r uniform. The gradient is
    taken at the view, so that none comes back through S. z and r are drawn for every image and view.

    No network comes with the package. The one that is brought is a module (N × C × H × W in [0, 1], N × D standard
    normal numbers) → images of the same shape, in evaluation mode; its attribute ``draws`` is D. It treats every
    image by itself. One that takes images of one size alone says so by an attribute ``image_size``.

    Attributes:
        style: the network: ``package.module:function``, a callable without arguments that returns the module;
            ``@weights.safetensors`` behind it holds all of its tensors.
        styles: views at each step.
        share: of the image itself in a view, γ.
        noise: largest, as a share of what ε allows a pixel; the authors' β.
    """

    style: str
    styles: PositiveInt = 20
    share: Share = 0.5
    noise: NonNegativeFloat = 2.0

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        parameters = given.kwargs or {} if isinstance(given, ArgsKwargs) else given
        if not parameters.get("style"):
            raise ValueError(
                "style: name a style-transfer network of yours, as package.module:function@weights.safetensors; "
                "none comes with the package (docs/attacks.md says what it takes and gives)"
            )
        return given

    def brought(self) -> Mapping[str, object]:
        return {"style": identity(self.style)}

    def check_files(self) -> None:
        style = _read(self.style)
        side = getattr(style.network, "image_size", None) or _SIDE
        style.given(torch.full((1, 3, side, side), 0.5), torch.zeros(1, style.draws))

    def check(self, classifier: nn.Module, image: torch.Tensor) -> None:  # noqa: ARG002
        style = _read(self.style)
        style.given(image, image.new_zeros(1, style.draws))

    def _inputs(self) -> tuple[InputTransform, ...]:
        return (_Restyled(self), *self.inputs)


class _Restyled(InputTransform):
    """The views of one run of the attack, for which the network is read once."""

    def __init__(self, attack: STM) -> None:
        self.attack = attack

    @property
    def copies(self) -> int:
        return self.attack.styles

    @cached_property
    def style(self) -> _Style:
        return _read(self.attack.style)

    def views(self, images: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:
        share, random, style = self.attack.share, problem.random, self.style
        reach = problem.ball.per_pixel(self.attack.noise * problem.epsilon)
        for _ in range(self.copies):
            numbers = random.normal(like=images.new_empty(len(images), style.draws))
            noise = reach * (2 * random.noise(like=images) - 1)
            view = share * images + (1 - share) * style.given(images.detach(), numbers) + noise
            # The view's value, and the image's place in the graph.
            yield images + (view - images).detach()


@dataclass(frozen=True)
class _Style:
    """A style network.

    Attributes:
        name: as the user names it.
        network: images and numbers → images.
        draws: how many numbers.
    """

    name: str
    network: nn.Module
    draws: int

    def given(self, images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Images (N × C × H × W) in the styles that numbers (N × ``draws``) stand for.

        Raises:
            UserError: the network fails, or what it gives is no finite images of the same shape.
        """
        try:
            with torch.no_grad():
                restyled = self.network.to(images)(images, numbers)
        except Exception as error:  # the user's own code
            if isinstance(error, RuntimeError) and ran_out_of_memory(error):
                raise  # fewer images at a time are tried then
            side = " × ".join(map(str, images.shape[-2:]))
            raise UserError(f"{self.name}: fails on images of {side}: {described(error)}") from error
        if not isinstance(restyled, torch.Tensor) or restyled.shape != images.shape:
            got = tuple(restyled.shape) if isinstance(restyled, torch.Tensor) else type(restyled).__name__
            raise UserError(f"{self.name}: must return images as given, {tuple(images.shape)}, got {got}")
        if not bool(torch.isfinite(restyled).all()):
            raise UserError(f"{self.name}: gives NaN or infinity; check its weights")
        return restyled.to(images)


def _read(name: str) -> _Style:
    """The network that a name of the user's stands for.

    Raises:
        UserError: it cannot be read, or does not say how many numbers a style is drawn by.
    """
    network = module(name)
    draws = getattr(network, "draws", None)
    if not isinstance(draws, int) or draws < 0:
        raise UserError(
            f"{name}: draws is {draws!r}; give the module an attribute draws, how many standard normal numbers a "
            "style is drawn by (0 for a fixed style)"
        )
    return _Style(name, network, draws)
