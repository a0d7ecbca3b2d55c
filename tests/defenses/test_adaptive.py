"""Attackers who know the defense: what they see is what the target sees, and their gradient is the one that is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import mergerisk as mr
from mergerisk import attacks
from mergerisk.defenses import bpda, eot
from mergerisk.defenses._soft_jpeg import _tables, soft_jpeg
from mergerisk.errors import UserError
from mergerisk.randomness import ImageRandom
from tests.defenses.pictures import Flat, Linear, as_images, byte_images
from tests.naive.models import SmoothClassifier

DETERMINISTIC: dict[str, dict[str, Any]] = {"bit_depth": {"bits": 2}, "jpeg": {"quality": 40}, "median": {}}


def gradient(module: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of each image's cross-entropy."""
    leaf = images.detach().clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(module(leaf), labels, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def followed(module: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The gradient that attacks follow on a module."""
    around = attacks.ball("linf", images, 0.1)
    random, pool = ImageRandom(0, "attack", range(len(images))), attacks.Pool(images, labels)
    problem = attacks.Problem(module, images, labels, None, around, random, pool)
    attack = attacks.create("i_fgsm")
    assert isinstance(attack, attacks.GradientAttack)
    return attack.loss_gradient(problem, module)(images)


def problem(count: int = 3, side: int = 12) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    images = as_images(byte_images(count, 3, side, side)).double()
    classifier = SmoothClassifier(3, side, side, seed=1)
    return classifier, images, classifier(images).argmax(dim=1)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_it_sees_what_the_target_sees(name: str) -> None:
    images = as_images(byte_images(3, 3, 21, 18))
    defense = mr.defenses.create(name, **DETERMINISTIC[name])
    assert torch.equal(defense.adaptive(Flat())(images), defense.defend(Flat())(images))


def test_rounding_passes_the_gradient_straight_through() -> None:
    classifier, images, labels = problem()
    defense = mr.defenses.create("bit_depth", bits=2)
    rounded = (images * 3).round() / 3
    found = gradient(defense.adaptive(classifier), images, labels)
    torch.testing.assert_close(found, gradient(classifier, rounded, labels), rtol=1e-12, atol=0)
    assert not bool(gradient(defense.defend(classifier), images, labels).any())


def test_the_medians_gradient_is_its_own() -> None:
    classifier, images, labels = problem(side=7)
    # No two pixels within 1/500 of each other, so that no small step changes their order.
    order = torch.randperm(images.numel(), generator=torch.Generator().manual_seed(0))
    images = order.view_as(images) / images.numel() * torch.ones_like(images)
    check_by_differences(mr.defenses.create("median").adaptive(classifier), images, labels)
    check_by_differences(mr.defenses.create("median", size=2).adaptive(classifier), images, labels)


def test_the_medians_gradient_goes_to_the_pixel_that_it_is() -> None:
    """Of a window with all pixels different: one gets it whole. Where several are the median, one of them does."""
    images = torch.tensor([[[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]]]).requires_grad_()
    median = mr.defenses.create("median")
    (found,) = torch.autograd.grad(median.adaptive(Flat())(images)[0, 4], images)
    assert found.nonzero().tolist() == [[0, 0, 1, 1]]
    assert float(found.sum()) == 1
    level = torch.full((2, 3, 5, 4), 0.5).requires_grad_()
    seen = median.adaptive(Flat())(level)
    assert torch.equal(seen, level.flatten(1))
    (found,) = torch.autograd.grad(seen.sum(), level)
    assert found.sum(dim=(2, 3)).tolist() == [[20.0] * 3] * 2


def check_by_differences(module: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """The gradient along random directions against central differences: their error is of third order in a step of
    1e-6, and rounding of a loss near 1 adds 2⁻⁵³ / 1e-6."""
    found = gradient(module, images, labels)
    draws = torch.Generator().manual_seed(3)

    def loss(points: torch.Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(module(points), labels, reduction="sum"))

    for _ in range(6):
        direction = torch.randn(images.shape, generator=draws, dtype=torch.float64)
        step = 1e-6
        slope = (loss(images + step * direction) - loss(images - step * direction)) / (2 * step)
        assert float((found * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 16, 16), (3, 13, 21), (1, 9, 8)])
@pytest.mark.parametrize("quality", [20, 90])
def test_the_smooth_jpegs_gradient_agrees_with_differences(
    quality: int, channels: int, height: int, width: int
) -> None:
    images = as_images(byte_images(2, channels, height, width)).double()
    classifier = SmoothClassifier(channels, height, width, seed=1)

    class Soft(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return classifier(soft_jpeg(pixels, quality))

    check_by_differences(Soft(), images, torch.tensor([0, 3]))


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_the_smooth_jpeg_is_near_pillows(quality: int) -> None:
    """Grey pictures differ by the smooth rounding alone, up to √(1/12) of a step in the mean as rounding does; so the
    smooth one lies nearer to Pillow's than the picture itself, and in colour too."""
    for channels in (1, 3):
        rows, columns = np.mgrid[0:48, 0:40]
        waves = 120 + 70 * np.sin(rows / 7)[..., None] * np.cos(columns / 5)[..., None] * np.array([1, 0.8, -0.6])
        noisy = waves[None, ..., :channels] + np.random.default_rng(0).normal(0, 6, (1, 48, 40, channels))
        images = as_images(np.clip(noisy, 0, 255).astype(np.uint8))
        pillows = mr.defenses.create("jpeg", quality=quality).defend(Flat())(images).view_as(images)
        soft = soft_jpeg(images, quality)
        lost = float((pillows - images).square().mean().sqrt())
        assert float((soft - pillows).square().mean().sqrt()) < 0.7 * lost


def test_the_tables_are_the_standards() -> None:
    """ITU-T T.81, annex K, at quality 50, row by row."""
    luminance, colour = _tables(50)
    assert list(luminance[:16]) == [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55]
    assert list(colour[:16]) == [17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99]


def test_jpegs_attacker_follows_the_smooth_one_from_where_pillows_leads() -> None:
    """The gradient at Pillow's pixels, back through the smooth JPEG at the image."""
    classifier, images, labels = problem(side=16)
    defense = mr.defenses.create("jpeg", quality=40)
    seen = defense.defend(Flat())(images).view_as(images)
    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(soft_jpeg(leaf, 40), leaf, gradient(classifier, seen, labels))
    torch.testing.assert_close(
        gradient(defense.adaptive(classifier), images, labels), expected, rtol=1e-9, atol=1e-12
    )


# --- expectation over draws ------------------------------------------------------------------------------


def test_draws_are_averaged_in_the_loss() -> None:
    """The gradient of the mean loss under k seeds is the mean of the k gradients."""
    from mergerisk.seeds import derive_seed

    classifier, images, labels = problem()
    defense = mr.defenses.create("resize_pad", smallest=0.5, seed=77)
    module = defense.adaptive(classifier, draws=4, seed=5)
    single = [
        gradient(
            mr.defenses.create("resize_pad", smallest=0.5, seed=derive_seed(5, "eot", number)).defend(classifier),
            images,
            labels,
        )
        for number in range(4)
    ]
    assert not torch.equal(single[0], single[1])
    expected = torch.stack(single).mean(dim=0)
    torch.testing.assert_close(followed(module, images, labels), expected, rtol=1e-9, atol=1e-12)


def test_the_attackers_draws_are_not_the_defenders() -> None:
    images = as_images(byte_images(4, 3, 16, 16))
    defense = mr.defenses.create("resize_pad", smallest=0.5)
    target = defense.defend(Flat())(images)
    for number in range(3):
        guess = defense.adaptive(Flat(), draws=1, seed=number)(images)
        assert not bool((guess.view(4, -1) == target).all(dim=1).any())


def test_smoothings_attacker_follows_the_mean_probability() -> None:
    classifier, images, labels = problem()
    module = mr.defenses.create("smoothing", sigma=0.2).adaptive(classifier, draws=5)
    probabilities = module(images).exp()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert bool(gradient(module, images, labels).flatten(1).any(dim=1).all())
    many = mr.defenses.create("smoothing", sigma=0.2).adaptive(classifier, draws=300)(images).exp()
    draws = torch.Generator().manual_seed(9)
    noisy = [classifier(images + 0.2 * torch.randn(images.shape, generator=draws).double()) for _ in range(300)]
    apart = torch.stack(noisy).softmax(dim=-1)
    error = 5 * (2 * apart.var(dim=0) / 300).sqrt()
    assert bool(((many - apart.mean(dim=0)).abs() <= error).all())


def test_any_classifier_that_draws_is_averaged() -> None:
    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.drawn = classifier, []

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            noise = 0.1 * torch.randn_like(pixels)
            self.drawn.append(noise)
            return self.inner(pixels + noise)

    classifier, images, labels = problem()
    noisy = Noisy()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = followed(eot(noisy, draws=3), images, labels)
    expected = torch.stack([gradient(classifier, images + noise, labels) for noise in noisy.drawn]).mean(dim=0)
    assert len(noisy.drawn) == 3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# --- and what it is for ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*DETERMINISTIC, "resize_pad", "smoothing"])
@pytest.mark.parametrize("draws", [1, 4])
def test_an_attack_costs_its_gradients_and_no_more(name: str, draws: int) -> None:
    classifier = Linear(torch.randn(3 * 64, generator=torch.Generator().manual_seed(0)))
    images = as_images(byte_images(2, 3, 8, 8))
    module = mr.defenses.create(name, **DETERMINISTIC.get(name, {})).adaptive(classifier, draws=draws)
    mr.attacks.create("i_fgsm", steps=3)(module, images, [0, 1], epsilon=0.1)
    each = draws if name in {"resize_pad", "smoothing"} else 1
    assert classifier.seen == (1 + 2 * 3) * each  # and one image to look at


@pytest.mark.parametrize(("name", "parameters"), [("bit_depth", {}), ("jpeg", {"quality": 90})])
def test_who_knows_the_defense_fools_what_stops_who_does_not(name: str, parameters: dict[str, Any]) -> None:
    """A linear classifier and pictures a quarter of ε from its boundary: the target's own gradient is zero, so that its
    white box fails on every one; around the transform all fall."""
    draws = torch.Generator().manual_seed(1)
    weight = torch.randn(3 * 64, generator=draws)
    images = as_images(byte_images(6, 3, 8, 8))
    defense = mr.defenses.create(name, **parameters)
    epsilon = 0.15
    reach = epsilon / 4 * float(weight.abs().sum())
    for image in images.split(1):
        classifier = Linear(weight, reach - float(defense.defend(Flat())(image) @ weight))
        defended = defense.defend(classifier)
        assert int(defended(image).argmax()) == 1
        attack = mr.attacks.create("i_fgsm", steps=5)
        assert int(defended(attack(defended, image, [1], epsilon=epsilon)).argmax()) == 1
        adaptive = attack(defense.adaptive(classifier), image, [1], epsilon=epsilon)
        assert int(defended(adaptive).argmax()) == 0


def test_bpda_takes_the_gradient_of_what_stands_behind() -> None:
    module = bpda(Flat(), torch.round, torch.square)
    images = torch.tensor([[[[0.2, 0.7]]]]).requires_grad_()
    assert module(images).tolist() == [[0.0, 1.0]]
    (found,) = torch.autograd.grad(module(images).sum(), images)
    assert torch.equal(found, 2 * images.detach())
    (straight,) = torch.autograd.grad(bpda(Flat(), torch.round)(images).sum(), images)
    assert torch.equal(straight, torch.ones_like(images))


@pytest.mark.parametrize("name", ["resize_pad", "smoothing", "jpeg"])
def test_no_draws_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="draws must be 1 or more"):
        mr.defenses.create(name).adaptive(Flat(), draws=0)
    with pytest.raises(UserError, match="draws must be 1 or more"):
        eot(Flat(), draws=0)
