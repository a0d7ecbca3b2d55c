"""What attacks cost, and that what they do to an image depends on that image alone."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from torch import nn

from mergerisk import attacks
from mergerisk.attacks import ATTACKS

INSIDE = {"pna_patchout", "tgr", "sgm", "fia", "naa", "feature", "ilpd", "att", "fpr"}
"""Attacks that need more of a classifier than logits."""
FROM_A_FILE = {"universal", "stm"}
BY_QUERIES = {"square"}
MIXING = {"admix", "l2t"}
"""Attacks that put something of the other images into each."""
NAMES = [name for name in ATTACKS.names() if name not in INSIDE | FROM_A_FILE]
IMAGES, SIDE, CLASSES = 5, 8, 3
IDENTITIES = [7, 3, 11, 0, 5]


class Counting(nn.Module):
    """A small smooth classifier that counts the images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * SIDE * SIDE, CLASSES)
            ).double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        logits: torch.Tensor = self.layers(images)
        return logits


@cache
def data() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    images = torch.rand(IMAGES, 3, SIDE, SIDE, generator=draws, dtype=torch.float64)
    return images, torch.arange(IMAGES) % CLASSES


def quick(name: str) -> attacks.Attack:
    """The attack with few steps, views and neighbours, as far as it has any."""
    few = {
        "steps": 3, "scales": 2, "mixes": 2, "spectra": 2, "shuffles": 2, "neighbours": 2, "queries": 20,
        "samples": 2, "patchworks": 2, "warps": 1, "chains": 2,
    }  # fmt: skip
    fields = {field.name for field in dataclasses.fields(ATTACKS.load(name))}
    return attacks.create(name, **{key: value for key, value in few.items() if key in fields})


def craft(name: str, norm: attacks.Norm, rows: list[int], batch_size: int | None = None) -> torch.Tensor:
    images, labels = data()
    epsilon = 0.1 if norm == "linf" else 1.0
    return quick(name)(
        Counting(),
        images[rows],
        labels[rows],
        epsilon=epsilon,
        norm=norm,
        indices=[IDENTITIES[row] for row in rows],
        batch_size=batch_size,
    )


@cache
def whole(name: str, norm: attacks.Norm) -> torch.Tensor:
    return craft(name, norm, list(range(IMAGES)))


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def images_shown(attack: attacks.Attack) -> float:
    """Images shown to the classifier per image attacked, but for the one that probes it."""
    classifier = Counting()
    images, labels = data()
    attack(classifier, images[:2], labels[:2], epsilon=0.1)
    return (classifier.seen - 1) / 2


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BY_QUERIES])
def test_an_image_costs_as_many_gradients_as_the_attack_says(name: str) -> None:
    attack = attacks.create(name)
    assert images_shown(attack) == attack.gradients_per_image


@pytest.mark.parametrize(
    "name", ["i_fgsm", "si_ni_fgsm", "vmi_fgsm", "pgn", "gra", "emi_fgsm", "mef", "decowa", "l2t"]
)
def test_every_gradient_is_taken_over_all_views(name: str) -> None:
    attack = attacks.create(name, steps=2, inputs=["di", {"input": "si", "scales": 3}])
    assert images_shown(attack) == attack.gradients_per_image
    assert attack.gradients_per_image == 3 * attacks.create(name, steps=2).gradients_per_image


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_the_batch_size(name: str, norm: attacks.Norm, batch_size: int) -> None:
    assert_same(craft(name, norm, list(range(IMAGES)), batch_size), whole(name, norm))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_the_order(name: str, norm: attacks.Norm) -> None:
    order = [3, 0, 4, 2, 1]
    assert_same(craft(name, norm, order, batch_size=2), whole(name, norm)[order])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in MIXING])
def test_results_do_not_depend_on_the_other_images(name: str, norm: attacks.Norm) -> None:
    rows = [4, 1]
    assert_same(craft(name, norm, rows), whole(name, norm)[rows])
