"""FGSM and its iterated descendants. Each class adds one idea to the shared loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from mergerisk.attacks.attack import Attack, IterativeAttack
from mergerisk.attacks.transforms import gaussian_blur, resize_and_pad
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.randomness import ImageRandom


@hyperparameters
class FGSM(Attack):
    """One step of size ε (Goodfellow et al. 2015, arXiv 1412.6572).

    The authors' later code attacks the predicted label; this attacks the true one.
    """

    def schedule(self, epsilon: float) -> tuple[int, float]:
        return 1, epsilon


@hyperparameters
class IFGSM(IterativeAttack):
    """Iterated FGSM, also called BIM (Kurakin et al. 2017, arXiv 1607.02533). Returns the last iterate."""


@hyperparameters
class MIFGSM(IterativeAttack):
    """Momentum (Dong et al. 2018, arXiv 1710.06081, algorithm 1)."""

    decay: NonNegativeFloat = 1.0


@hyperparameters
class NIFGSM(MIFGSM):
    """Nesterov look-ahead: the gradient is taken at x + α μ m, which is not clipped
    (Lin et al. 2020, arXiv 1908.06281, equation 6)."""

    def look_ahead(self, adversarial: torch.Tensor, momentum: torch.Tensor, step_size: float) -> torch.Tensor:
        return adversarial + step_size * self.decay * momentum


@hyperparameters
class TIFGSM(MIFGSM):
    """Translation invariance: the gradient is blurred by a Gaussian, before it is normalised
    (Dong et al. 2019, arXiv 1904.02884, equation 8).

    With momentum, as in TransferAttack; ``decay=0`` gives it without. torchattacks' TIFGSM also applies DI.

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


@hyperparameters
class DIFGSM(MIFGSM):
    """Diverse inputs: before each gradient, with some probability, an image is shrunk to a random size and put
    at a random place on black (Xie et al. 2019, arXiv 1803.06978).

    The output keeps the input's size, which ViTs need. Sizes, places and coin tosses belong to the image, not
    to the batch. With momentum, as in the paper's M-DI²-FGSM; ``decay=0`` gives it without.

    Attributes:
        probability: that an image is transformed, at each step.
        smallest: the smallest side, as a share of the image's; the paper's 299/330 is about 0.9.
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.9

    def transform(self, images: torch.Tensor, random: ImageRandom) -> torch.Tensor:
        draws = random.uniform(4, like=images)
        apply = draws[:, 0] < self.probability
        side = images.shape[-1]
        low = max(1, int(self.smallest * side))
        sizes = torch.where(apply, low + (draws[:, 1] * (side - low)).floor(), side)
        return resize_and_pad(images, sizes / side, draws[:, 2], draws[:, 3])
