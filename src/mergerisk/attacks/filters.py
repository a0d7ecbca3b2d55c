"""Gradient filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveFloat

from mergerisk.attacks._transforms import gaussian_blur
from mergerisk.attacks.parts import GradientFilter
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    import torch


@hyperparameters
class TranslationInvariance(GradientFilter):
    """The gradient is blurred by a Gaussian, which stands for averaging it over shifted copies of the image
    (Dong et al. 2019, arXiv 1904.02884, equation 8).

    Attributes:
        kernel_size: side of the kernel in pixels, odd; the paper's 15.
        sigma: the kernel spans ±sigma standard deviations.
    """

    kernel_size: Annotated[int, Field(ge=1)] = 15
    sigma: PositiveFloat = 3.0

    def __post_init__(self) -> None:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")

    def filter(self, gradient: torch.Tensor) -> torch.Tensor:
        return gaussian_blur(gradient, self.kernel_size, self.sigma)
