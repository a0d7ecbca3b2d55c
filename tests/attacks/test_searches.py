"""APGD and Square against transcriptions of the papers' algorithms that are given the same random numbers."""

from __future__ import annotations

import pytest
import torch

from mergerisk import attacks
from mergerisk.attacks.losses import difference_of_logits_ratio
from mergerisk.errors import UserError
from mergerisk.randomness import ImageRandom
from tests.naive import searches
from tests.naive.models import Recorder, smooth_problem

SIZES = [(3, 3, 9, 7), (2, 1, 5, 5), (2, 3, 17, 16), (1, 3, 1, 1)]
LOSSES = {"apgd_ce": searches.cross_entropy, "apgd_dlr": searches.dlr}


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8 / 255), ("l2", 0.5), ("linf", 0.3)])
@pytest.mark.parametrize("name", LOSSES)
def test_apgd_is_the_papers(name: str, norm: attacks.Norm, epsilon: float, targeted: bool) -> None:
    for size in SIZES[:3]:
        classifier, images, labels = smooth_problem(*size)
        targets = (labels + 1) % 4 if targeted else None
        attack = attacks.create(name, steps=30, targeted=targeted)
        found = attack(classifier, images, labels, epsilon=epsilon, norm=norm, targets=targets, seed=3)
        for i in range(len(images)):
            around = attacks.ball(norm, images[i : i + 1], epsilon)
            expected = searches.apgd(
                classifier,
                images[i],
                int(labels[i]),
                around.start(ImageRandom(3, "attack", [i]))[0],
                epsilon=epsilon,
                norm=norm,
                loss=LOSSES[name],
                steps=30,
                target=None if targets is None else int(targets[i]),
            )
            torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 8 / 255), ("l2", 0.3), ("l2", 2.0)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_square_is_the_papers(
    size: tuple[int, int, int, int], norm: attacks.Norm, epsilon: float, targeted: bool
) -> None:
    classifier, images, labels = smooth_problem(*size)
    targets = (labels + 1) % 4 if targeted else None
    recorder = Recorder(classifier)
    attack = attacks.create("square", queries=60, targeted=targeted)
    epsilon = min(epsilon, images[0].numel() ** 0.5 / 2)
    found = attack(recorder, images, labels, epsilon=epsilon, norm=norm, targets=targets, seed=3)
    asked = 1
    for i in range(len(images)):
        expected, own = searches.square(
            classifier,
            images[i],
            int(labels[i]),
            ImageRandom(3, "attack", [i]),
            epsilon=epsilon,
            norm=norm,
            queries=60,
            target=None if targets is None else int(targets[i]),
        )
        asked += own
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-10)
    assert sum(map(len, recorder.seen)) == asked


def test_the_ratio_by_hand() -> None:
    logits = torch.tensor([[5.0, 3.0, 1.0, 0.0], [2.0, 7.0, 1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0])
    found = difference_of_logits_ratio(logits, labels)
    torch.testing.assert_close(found, torch.tensor([-2 / 4, 5 / 6], dtype=torch.float64))
    aimed = difference_of_logits_ratio(logits, labels, torch.tensor([2, 1]))
    torch.testing.assert_close(aimed, torch.tensor([-4 / 4.5, 5 / 6.5], dtype=torch.float64))
    for changed in (10 * logits, logits + 3):
        torch.testing.assert_close(difference_of_logits_ratio(changed, labels), found)


@pytest.mark.parametrize(("classes", "targeted"), [(2, False), (3, True)])
def test_too_few_classes_for_the_ratio_are_said(classes: int, targeted: bool) -> None:
    classifier, images, _ = smooth_problem(2, 3, 5, 5)

    class Few(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return classifier(pixels)[:, :classes]

    with pytest.raises(UserError, match=f"needs {classes + 1} classes"):
        attacks.create("apgd_dlr", targeted=targeted)(Few(), images, [0, 1], epsilon=0.1)


def test_longer_runs_gain_no_less_than_pgd() -> None:
    """On the cross-entropy of a smooth classifier, from the same start, with as many steps: what it is for."""
    classifier, images, labels = smooth_problem(20, 3, 9, 7, seed=2)

    def gained(name: str) -> torch.Tensor:
        adversarial = attacks.create(name, steps=50)(classifier, images, labels, epsilon=0.1)
        return torch.nn.functional.cross_entropy(classifier(adversarial), labels, reduction="none")

    assert float(gained("apgd_ce").mean()) >= float(gained("pgd").mean())
