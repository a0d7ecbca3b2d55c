"""Naive style transfer method (STM, Ge et al. 2023, arXiv 2308.10601), by the authors' code, with a style network that
fits on a line: colours are bent and shifted by drawn numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.naive.attacks.loop import ForEachImage, Task, Trace, iterate

GAINS = (0.25, 0.5, 0.75)


class Tint(nn.Module):
    """The style network, as a user would bring it: for images of up to three channels."""

    draws = 6

    def __init__(self) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.tensor(GAINS))

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        gains = self.gains[: images.shape[1]]
        bend, shift = ((gains * part[:, : len(gains)])[..., None, None] for part in numbers.split(3, dim=1))
        return torch.sigmoid(4 * (images - 0.5) * (1 + bend) + shift)


def tint() -> nn.Module:
    """What ``style`` names."""
    return Tint()


def tinted(image: Tensor, numbers: Tensor) -> Tensor:
    """The same of one image, channel by channel."""
    channels = [
        1 / (1 + torch.exp(-(4 * (pixels - 0.5) * (1 + GAINS[c] * numbers[c]) + GAINS[c] * numbers[3 + c])))
        for c, pixels in enumerate(image)
    ]
    return torch.stack(channels)


@ForEachImage
def stm(task: Task, style: str, styles: int = 20, share: float = 0.5, noise: float = 2.0) -> Trace:
    """The mean gradient at mixtures of the image, the image restyled, and noise."""
    assert style.partition("@")[0] == f"{__name__}:tint"

    def ascent(adversarial: Tensor, _: Tensor) -> Tensor:
        total = torch.zeros_like(adversarial)
        for _ in range(styles):
            restyled = tinted(adversarial, task.draws.normal(like=torch.zeros(1, 6, dtype=torch.float64))[0])
            uniform = task.draws.noise(like=adversarial[None])[0]
            around = noise * task.per_pixel(task.epsilon) * (2 * uniform - 1)
            total += task.ascent(share * adversarial + (1 - share) * restyled + around)
        return total / styles

    return iterate(task, ascent)
