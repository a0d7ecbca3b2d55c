"""The attacks against torchattacks; ``tests/vectors/make_torchattacks_vectors.py`` made its images once."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open

from mergerisk import attacks
from mergerisk.randomness import ImageRandom
from tests.naive import attacks as naive
from tests.naive.attacks.loop import NoDraws
from tests.naive.models import small_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

FILE = Path(__file__).parents[1] / "vectors" / "torchattacks.safetensors"
NAMES = [
    "fgsm",
    "i_fgsm",
    "mi_fgsm",
    "ni_fgsm",
    "ti_fgsm",
    "ti_fgsm_without_momentum",
    "pgd",
    "pgd_without_start",
    "si_ni_fgsm",
    "vmi_fgsm",
    "vni_fgsm",
]
TWINS = {"i_fgsm", "pgd_without_start"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These tensors are tiny: with several workers, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Vectors:
    """What the file holds.

    Attributes:
        numbers: draws × images × pixels: uniform in [0, 1), in the order in which torchattacks drew them.
        parameters: name → this project's attack and its parameters.
    """

    classifier: nn.Module
    images: Tensor
    labels: Tensor
    numbers: Tensor
    adversarial: dict[str, Tensor]
    epsilon: float
    parameters: dict[str, dict[str, Any]]


@cache
def vectors() -> Vectors:
    with safe_open(FILE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata()
    classifier = small_classifier()
    prefix = "weights."
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    classifier.load_state_dict(weights)
    classifier.eval().requires_grad_(False)
    prefix = "adversarial."
    return Vectors(
        classifier=classifier,
        images=tensors["images"].float() / 255,
        labels=tensors["labels"],
        numbers=tensors["numbers"].float() / 256,
        adversarial={
            name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
        },
        epsilon=float(metadata["epsilon"]),
        parameters=json.loads(metadata["parameters"]),
    )


class Recorded(NoDraws):
    """Hands out what torchattacks drew, in the same order."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = iter(numbers)

    def noise(self, *, like: Tensor) -> Tensor:
        return next(self._numbers).to(like)


def share_equal(one: Tensor, two: Tensor) -> float:
    return float(((one.double() - two.double()).abs() <= 1e-6).double().mean())


def test_vectors_tell_the_attacks_apart() -> None:
    adversarial = vectors().adversarial
    assert sorted(adversarial) == sorted(NAMES) == sorted(vectors().parameters)
    for one, two in itertools.combinations(adversarial, 2):
        equal = share_equal(adversarial[one], adversarial[two])
        assert (equal == 1) if {one, two} == TWINS else (equal < 0.99), (one, two)


@pytest.mark.parametrize("name", NAMES)
def test_package_matches_torchattacks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    v = vectors()
    draws = Recorded(v.numbers)
    monkeypatch.setattr(ImageRandom, "noise", lambda _, *, like: draws.noise(like=like))
    parameters = dict(v.parameters[name])
    attack = attacks.create(parameters.pop("attack"), **parameters)
    adversarial = attack(v.classifier, v.images, v.labels, epsilon=v.epsilon, seed=0)
    assert adversarial.dtype == torch.float32
    assert share_equal(adversarial, v.adversarial[name]) >= 0.998


@pytest.mark.parametrize("name", ["i_fgsm", "mi_fgsm", "ni_fgsm", "ti_fgsm"])
def test_default_step_size_is_a_quarter_of_the_budget(name: str) -> None:
    v = vectors()
    parameters = {key: value for key, value in v.parameters[name].items() if key != "step_size"}
    attack = attacks.create(parameters.pop("attack"), **parameters)
    adversarial = attack(v.classifier, v.images, v.labels, epsilon=v.epsilon, seed=0)
    assert share_equal(adversarial, v.adversarial[name]) >= 0.998


@pytest.mark.parametrize("name", NAMES)
def test_naive_implementation_matches_torchattacks(name: str) -> None:
    """The reference of the other tests is itself held against outside code."""
    v = vectors()
    few = slice(0, 4)
    parameters = dict(v.parameters[name])
    reference = getattr(naive, parameters.pop("attack"))
    classifier = small_classifier().double()
    classifier.load_state_dict(v.classifier.state_dict())
    images = v.images[few].double()
    draws = [Recorded(v.numbers[:, [place]]) for place in range(len(images))]
    adversarial = reference(classifier, images, v.labels[few], epsilon=v.epsilon, draws=draws, **parameters)
    assert share_equal(adversarial, v.adversarial[name][few]) >= 0.998
