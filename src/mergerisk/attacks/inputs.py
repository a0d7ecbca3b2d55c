"""Input transformations: what the classifier is shown in an image's place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from mergerisk.attacks._transforms import (
    cosine_transform,
    inverse_cosine_transform,
    partition,
    resize_and_pad,
    shuffle_blocks,
)
from mergerisk.attacks.parts import InputTransform
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.attacks.attack import Problem


@hyperparameters
class DiverseInputs(InputTransform):
    """With some probability, an image is shrunk to a random size and put at a random place on black
    (Xie et al. 2019, arXiv 1803.06978, section 3.3).

    The view keeps the image's size, which ViTs need. Sizes, places and coin tosses belong to the image, not to the
    batch.

    Attributes:
        probability: that an image is transformed, at each step.
        smallest: the smallest side, as a share of the image's; the paper's 299/330 is about 0.9.
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.9

    def views(self, images: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:
        draws = problem.random.uniform(4, like=images)
        apply = draws[:, 0] < self.probability
        side = images.shape[-1]
        low = max(1, int(self.smallest * side))
        sizes = torch.where(apply, low + (draws[:, 1] * (side - low)).floor(), side)
        yield resize_and_pad(images, sizes / side, draws[:, 2], draws[:, 3])


@hyperparameters
class ScaledInputs(InputTransform):
    """The image at several scales of its pixel values, x / 2ⁱ for i = 0 … ``scales`` − 1
    (Lin et al. 2020, arXiv 1908.06281, equation 8).

    Attributes:
        scales: number of copies.
    """

    scales: PositiveInt = 5

    @property
    def copies(self) -> int:
        return self.scales

    def views(self, images: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:  # noqa: ARG002
        for power in range(self.scales):
            yield images / 2**power


@hyperparameters
class Admix(InputTransform):
    """A share of an image of another class is added, then the pixel values are scaled as in
    :class:`ScaledInputs` (Wang et al. 2021, arXiv 2102.00436, equation 6).

    Partners are drawn per image from all the images of the call; public code permutes the batch, so that what an
    image is mixed with depends on the batch size.

    Attributes:
        mixes: partners at each step.
        share: of the partner's pixel values that is added, η.
        scales: copies of every mix.
    """

    mixes: PositiveInt = 3
    share: NonNegativeFloat = 0.2
    scales: PositiveInt = 5

    @property
    def copies(self) -> int:
        return self.mixes * self.scales

    def views(self, images: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:
        # How many images of other classes there are up to each of the pool's.
        others = (problem.pool.labels != problem.labels[:, None]).cumsum(dim=1)
        count = others[:, -1]
        # Where there is none, the image is mixed with nothing.
        share = self.share * (count > 0).to(images)[:, None, None, None]
        exact = images.new_empty(0, dtype=torch.float64)
        for _ in range(self.mixes):
            rank = (problem.random.uniform(1, like=exact)[:, 0] * count).floor().long()
            partner = (others > rank[:, None]).int().argmax(dim=1)
            mixed = images + share * problem.pool.images[partner]
            for power in range(self.scales):
                yield mixed / 2**power


@hyperparameters
class SpectrumInputs(InputTransform):
    """Gaussian noise on the pixels, then every coefficient of the cosine transform is multiplied by a random
    number around 1 (Long et al. 2022, arXiv 2207.05382, equation 7).

    Attributes:
        spectra: copies.
        spread: the factors are uniform in 1 ± ``spread``, ρ.
        noise: standard deviation of the noise, as a share of ε.
        gradient_at: where the gradient is taken: at the ``image``, back through noise and transform, as those of
            every other input; or at the ``view`` itself, as public code does, the authors' included.
    """

    spectra: PositiveInt = 20
    spread: Annotated[float, Field(ge=0, le=1)] = 0.5
    noise: NonNegativeFloat = 1.0
    gradient_at: Literal["image", "view"] = "image"

    @property
    def copies(self) -> int:
        return self.spectra

    def shared(self, images: torch.Tensor) -> torch.Tensor:
        return cosine_transform(images) if self.gradient_at == "image" else images

    def views(self, images: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:
        return self.views_of(self.shared(images), problem)

    def views_of(self, shared: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:
        at_image = self.gradient_at == "image"
        spectrum = shared if at_image else cosine_transform(shared.detach())
        deviation = self.noise * problem.ball.per_pixel(problem.epsilon)
        for _ in range(self.spectra):
            noise = cosine_transform(problem.random.normal(like=shared).mul_(deviation))
            factors = problem.random.noise(like=shared).mul_(2 * self.spread).add_(1 - self.spread)
            view = inverse_cosine_transform(noise.add_(spectrum).mul_(factors))
            # The second has the view's value and the image's place in the graph.
            yield view if at_image else shared + (view - shared.detach())


@hyperparameters
class BlockShuffle(InputTransform):
    """The image is cut into blocks at random places, and the blocks are shuffled and rotated about their centres
    (Wang et al. 2024, arXiv 2308.10299).

    Rows of blocks change places, then within each row the columns do. Cuts, orders and angles belong to the image,
    not to the batch. TransferAttack has the same 3 × 3 blocks, but rotates whole strips, alike for a whole batch.

    Attributes:
        shuffles: copies.
        blocks: along each side.
        degrees: angles are uniform within ± ``degrees``, τ.
        smallest: sides of blocks are in proportion to numbers uniform in [``smallest``, 1]: 0 as in the authors'
            code; 0.5 is TransferAttack's, whose numbers lie in (1, 2], so that no block is small.
    """

    shuffles: PositiveInt = 20
    blocks: PositiveInt = 3
    degrees: Annotated[float, Field(ge=0, le=180)] = 24.0
    smallest: Annotated[float, Field(ge=0, le=1)] = 0.0

    @property
    def copies(self) -> int:
        return self.shuffles

    def views(self, images: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:
        blocks = self.blocks
        exact = images.new_empty(0, dtype=torch.float64)

        def draw(*shape: int) -> torch.Tensor:
            return problem.random.uniform(*shape, like=exact)

        for _ in range(self.shuffles):
            heights, widths = (
                partition(self.smallest + (1 - self.smallest) * draw(blocks), side) for side in images.shape[-2:]
            )
            row_order = draw(blocks).argsort()
            column_order = draw(blocks, blocks).argsort()
            angles = math.radians(self.degrees) * (2 * draw(blocks, blocks) - 1)
            yield shuffle_blocks(images, heights, widths, row_order, column_order, angles)
