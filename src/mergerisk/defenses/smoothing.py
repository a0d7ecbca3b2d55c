"""A vote under noise, and how far it certainly holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.special import betaincinv, ndtri
from torch import nn

from mergerisk.attacks.ensemble import Ensemble
from mergerisk.attacks.given import check_images
from mergerisk.defenses.adaptive import checked_draws
from mergerisk.defenses.content import content_random
from mergerisk.defenses.defense import Defense
from mergerisk.defenses.inputs import with_no_gradient
from mergerisk.errors import UserError
from mergerisk.models.inside.hooks import evaluating
from mergerisk.seeds import derive_seed
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

ABSTAINED = -1
"""The class of an image on which nothing is certain."""


@dataclass(frozen=True, eq=False)
class Certified:
    """What a smoothed classifier says of images, and how far that holds.

    Attributes:
        classes: int64, N; :data:`ABSTAINED` where none has a majority for sure.
        radii: float64, N: no change of smaller Euclidean length, in pixel units, over all pixels and channels,
            changes the answer; 0 where it abstains.
        lower: float64, N: the bound from below on the probability of the class that was tried.
        votes: int64, N: for that class, of ``draws``.
        draws: how often each image was shown to estimate it.
        alpha: the probability, for each image, that its radius is too large.
    """

    classes: NDArray[np.int64]
    radii: NDArray[np.float64]
    lower: NDArray[np.float64]
    votes: NDArray[np.int64]
    draws: int
    alpha: float


@hyperparameters
class Smoothing(Defense):
    """Randomised smoothing (Cohen et al. 2019, arXiv 1902.02918): the class that most noisy copies of an image are
    taken for.

    :meth:`defend` gives the vote, which an attack judges; :meth:`certify` a radius that no attack can beat. They
    are different figures: a vote may hold far beyond its radius.

    Noise belongs to (seed, what the image shows), so that the vote on a picture is always the same. Counting has
    no gradient: an attacker who knows it follows the mean probability under noise of their own (Salman et al.
    2019, arXiv 1906.04584).

    Attributes:
        sigma: standard deviation of the noise, in pixel units; noisy pixels are not clipped.
        votes: noisy copies that :meth:`defend` asks about.
        n0: copies that :meth:`certify` picks the class with.
        n: copies it then estimates that class's probability with.
        alpha: how often a radius may be too large.
        seed: the defender's.
    """

    sigma: PositiveFloat = 0.25
    votes: PositiveInt = 100
    n0: PositiveInt = 100
    n: PositiveInt = 10_000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    seed: int = 0

    def defend(self, classifier: nn.Module) -> nn.Module:
        return _Voting(classifier, self.sigma, self.votes, self.seed)

    @property
    def passes(self) -> int:
        """As many as there are votes."""
        return self.votes

    def adaptive_passes(self, draws: int = 10) -> int:
        return checked_draws(draws)

    def adaptive(self, classifier: nn.Module, *, draws: int = 10, seed: int = 0) -> nn.Module:
        seeds = [derive_seed(seed, "eot", number) for number in range(checked_draws(draws))]
        return Ensemble([_Noisy(classifier, self.sigma, one) for one in seeds], combine="probabilities")

    @torch.no_grad()
    def certify(self, classifier: nn.Module, images: torch.Tensor, *, batch_size: int = 100) -> Certified:
        """Classes and radii (Cohen et al. 2019, section 3.2.2).

        With k of n noisy copies taken for the class that n0 others chose, its probability is at least the
        Clopper-Pearson bound p for confidence 1 − alpha, and no change shorter than σ Φ⁻¹(p) changes the smoothed
        classifier's answer. Where p is at most ½ it abstains.

        Args:
            classifier: the one that is smoothed: not the defended one.
            images: N × C × H × W, floating, in [0, 1].
            batch_size: noisy copies at a time.

        Raises:
            UserError: images out of range, or a batch size below 1.
        """
        images = check_images(images)
        if batch_size < 1:
            raise UserError(f"batch_size must be 1 or more, got {batch_size}")
        tried, votes = [], []
        with evaluating(classifier):
            for image in images.split(1):
                first = self._counted(classifier, image, "smoothing/choose", self.n0, batch_size)
                tried.append(int(first.argmax()))
                found = self._counted(classifier, image, "smoothing/estimate", self.n, batch_size)
                votes.append(int(found[tried[-1]]))
        lower = lower_bound(np.array(votes, dtype=np.int64), self.n, self.alpha)
        sure = lower > 0.5
        return Certified(
            np.where(sure, np.array(tried, dtype=np.int64), ABSTAINED),
            np.where(sure, self.sigma * ndtri(np.where(sure, lower, 0.5)), 0.0),
            lower,
            np.array(votes, dtype=np.int64),
            self.n,
            self.alpha,
        )

    def _counted(
        self, classifier: nn.Module, image: torch.Tensor, stream: str, draws: int, batch_size: int
    ) -> torch.Tensor:
        """int64, classes: how often noisy copies of one image are taken for each."""
        random = content_random(self.seed, stream, image)
        total: torch.Tensor | None = None
        for start in range(0, draws, batch_size):
            copies = [random.normal(like=image) for _ in range(min(batch_size, draws - start))]
            logits = classifier(image + self.sigma * torch.cat(copies))
            found = logits.argmax(dim=1).bincount(minlength=logits.shape[1])
            total = found if total is None else total + found
        assert total is not None, "at least one draw"
        return total


def lower_bound(successes: NDArray[np.int64], trials: int, alpha: float) -> NDArray[np.float64]:
    """Clopper and Pearson's one-sided lower bound on a probability, of confidence 1 − ``alpha``: 0 where there
    was no success, else the α quantile of Beta(k, n − k + 1)."""
    k = np.asarray(successes, dtype=np.float64)
    return np.where(k > 0, betaincinv(np.maximum(k, 1.0), trials - k + 1, alpha), 0.0)


class _Noisy(nn.Module):
    """A classifier that sees images under one draw of noise."""

    def __init__(self, classifier: nn.Module, sigma: float, seed: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.sigma = sigma
        self.seed = seed

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × C × H × W in [0, 1] → logits, N × classes."""
        noise = content_random(self.seed, "smoothing", images).normal(like=images)
        logits: torch.Tensor = self.classifier(images + self.sigma * noise)
        return logits


class _Voting(nn.Module):
    """The share of noisy copies that are taken for each class."""

    def __init__(self, classifier: nn.Module, sigma: float, votes: int, seed: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.sigma = sigma
        self.votes = votes
        self.seed = seed

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × C × H × W in [0, 1] → shares of the votes, N × classes; the gradient by the images is zero."""
        random = content_random(self.seed, "smoothing", images)
        counted: torch.Tensor | None = None
        with torch.no_grad():
            for _ in range(self.votes):
                logits = self.classifier(images + self.sigma * random.normal(like=images))
                vote = torch.zeros_like(logits).scatter_(1, logits.argmax(dim=1, keepdim=True), 1.0)
                counted = vote if counted is None else counted + vote
        assert counted is not None, "at least one vote"
        shares = counted / self.votes
        return with_no_gradient(shares, images) if images.requires_grad else shares
