"""Randomised smoothing against the published formula and a classifier whose radius is known."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
import torch

import mergerisk as mr
from mergerisk.defenses import ABSTAINED
from mergerisk.defenses.smoothing import lower_bound
from mergerisk.errors import UserError
from tests.defenses.pictures import Linear, as_images, byte_images


def at_least(successes: int, trials: int, p: float) -> float:
    """The probability of so many successes or more, summed exactly."""
    exact = Fraction(p)
    return float(
        sum(math.comb(trials, k) * exact**k * (1 - exact) ** (trials - k) for k in range(successes, trials + 1))
    )


@pytest.mark.parametrize(("successes", "trials"), [(1, 5), (9, 10), (73, 100), (100, 100), (51, 100)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_bound_is_where_so_many_votes_become_unlikely(successes: int, trials: int, alpha: float) -> None:
    """Clopper and Pearson's definition: at the bound, as many successes or more have probability α."""
    bound = float(lower_bound(np.array([successes]), trials, alpha)[0])
    assert at_least(successes, trials, bound) == pytest.approx(alpha, rel=1e-9)


def test_without_a_success_nothing_is_bounded() -> None:
    assert lower_bound(np.array([0]), 10, 0.001)[0] == 0


def linear(shape: tuple[int, ...], distance: float) -> tuple[Linear, torch.Tensor]:
    """A linear classifier, and one grey image so far from its boundary on the side of class 1."""
    image = torch.full((1, *shape), 0.5)
    weight = torch.randn(image[0].numel(), generator=torch.Generator().manual_seed(0))
    weight = weight / weight.norm()
    return Linear(weight, distance - float(image.flatten(1) @ weight)), image


@pytest.mark.parametrize("distance", [0.05, 0.1, 0.3])
def test_a_linear_classifiers_radius_is_its_distance(distance: float) -> None:
    """Smoothed, it is itself: its probability is Φ(distance/σ), so that the certified radius is the distance, from
    below: less than it but for α of the time, and no farther than n votes can tell."""
    sigma, n, alpha = 0.2, 4000, 0.001
    classifier, image = linear((3, 4, 4), distance)
    smoothing = mr.defenses.create("smoothing", sigma=sigma, n=n, alpha=alpha)
    found = smoothing.certify(classifier, image)
    assert found.classes.tolist() == [1]
    assert found.radii[0] <= distance
    # Five standard deviations of the votes and the bound's own distance from their share.
    p = NormalDist().cdf(distance / sigma)
    least = p - 9 * math.sqrt(p * (1 - p) / n) - 8 / n
    assert found.radii[0] >= sigma * NormalDist().inv_cdf(least)
    assert found.votes[0] == pytest.approx(n * p, abs=5 * math.sqrt(n * p * (1 - p)))


def test_the_radius_is_the_published_formula() -> None:
    classifier, image = linear((3, 4, 4), 0.2)
    found = mr.defenses.create("smoothing", sigma=0.5, n=500).certify(classifier, image)
    assert found.draws == 500
    bound = found.lower[0]
    assert at_least(int(found.votes[0]), 500, bound) == pytest.approx(0.001, rel=1e-9)
    assert found.radii[0] == pytest.approx(0.5 * NormalDist().inv_cdf(bound), rel=1e-12)


def test_it_abstains_at_the_boundary() -> None:
    classifier, image = linear((3, 4, 4), 0.0)
    found = mr.defenses.create("smoothing", n=300).certify(classifier, image)
    assert found.classes.tolist() == [ABSTAINED]
    assert found.radii.tolist() == [0.0]
    assert found.lower[0] <= 0.5


def test_an_image_is_shown_as_often_as_said() -> None:
    classifier, image = linear((3, 4, 4), 0.1)
    smoothing = mr.defenses.create("smoothing", n0=7, n=25, votes=9)
    smoothing.certify(classifier, image.expand(2, -1, -1, -1), batch_size=10)
    assert classifier.seen == 2 * (7 + 25)
    smoothing.defend(classifier)(image)
    assert classifier.seen == 2 * (7 + 25) + 9


def test_votes_and_certificates_belong_to_the_picture() -> None:
    images = as_images(byte_images(5, 3, 6, 6))
    weight = torch.randn(108, generator=torch.Generator().manual_seed(2))
    classifier = Linear(weight, -float((images.flatten(1) @ weight).median()))
    smoothing = mr.defenses.create("smoothing", sigma=0.5, n0=20, n=60, votes=30)
    defended = smoothing.defend(classifier)
    shares = defended(images)
    assert torch.equal(torch.cat([defended(one) for one in images.split(2)]), shares)
    assert bool((shares.sum(dim=1) - 1).abs().max() < 1e-6)
    assert len(shares[:, 0].unique()) > 2
    whole = smoothing.certify(classifier, images)
    part = smoothing.certify(classifier, images[[3, 1]], batch_size=7)
    assert part.votes.tolist() == whole.votes[[3, 1]].tolist()


def test_images_out_of_range_are_refused() -> None:
    classifier, image = linear((3, 4, 4), 0.1)
    with pytest.raises(UserError):
        mr.defenses.create("smoothing").certify(classifier, 255 * image)
    with pytest.raises(UserError, match="batch_size"):
        mr.defenses.create("smoothing").certify(classifier, image, batch_size=0)
