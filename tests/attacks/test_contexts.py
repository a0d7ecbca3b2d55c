"""Attacks as people call them: from any mode, with any labels, on classifiers that draw or cannot be differentiated."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mergerisk import attacks
from mergerisk.errors import UserError
from tests.attacks.test_model_attacks import pictures, vit
from tests.attacks.test_properties import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHEAP = PLAIN | {
    "fia": {"ensemble": 2},
    "naa": {"integration": 2},
    "pna_patchout": {},
    "tgr": {"maps": "scores", "tokens": "outputs"},
    "sgm": {},
    "universal": {},
    "feature": {},
    "ilpd": {},
    "att": {},
    "fpr": {},
}
LOOPLESS = {"fgsm", "universal", "square"}

every_attack = pytest.mark.parametrize("name", CHEAP)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("universal") / "perturbation.npy"
    np.save(path, 0.01 * np.ones((3, 16, 16)))
    return path


@pytest.fixture
def create(file: Path) -> Callable[[str], attacks.Attack]:
    """The attack of that name, cheap."""

    def create(name: str) -> attacks.Attack:
        parameters = CHEAP[name] | ({} if name in LOOPLESS else {"steps": 2})
        return attacks.create(name, **parameters, **({"file": str(file)} if name == "universal" else {}))

    return create


def test_every_attack_is_here() -> None:
    own = {entry.name for entry in attacks.ATTACKS.entries() if entry.target.startswith("mergerisk.")}
    assert own == set(CHEAP)


class Around(nn.Module):
    """A classifier within another."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier


class Drawing(Around):
    """Noise on the pixels and dropout on the logits, in every mode, from the global generator."""

    def forward(self, pixels: Tensor) -> Tensor:
        noisy = pixels + 0.1 * torch.randn_like(pixels)
        return F.dropout(self.classifier(noisy), 0.3, training=True)


class Tinted(Around):
    """Begins with a convolution, which converts nothing."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__(classifier)
        self.tint = nn.Conv2d(3, 3, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(self.tint(pixels))


class Cut(Around):
    """No gradient comes back."""

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(pixels)


@cache
def problem() -> tuple[nn.Module, Tensor, Tensor]:
    """A transformer that every attack can reach into, with images and labels."""
    return vit().classifier, *pictures()


def no_grad(attack: attacks.Attack) -> Tensor:
    with torch.no_grad():
        return attack(*problem(), epsilon=0.1)


def inference_mode(attack: attacks.Attack) -> Tensor:
    with torch.inference_mode():
        return attack(*problem(), epsilon=0.1)


def made_in_inference_mode(attack: attacks.Attack) -> Tensor:
    classifier, images, labels = problem()
    with torch.inference_mode():
        images, labels = images.clone(), labels.clone()
    return attack(classifier, images, labels, epsilon=0.1)


def images_with_a_graph(attack: attacks.Attack) -> Tensor:
    classifier, images, labels = problem()
    leaf = images.clone().requires_grad_()
    adversarial = attack(classifier, leaf * 1.0, labels, epsilon=0.1)
    assert leaf.grad is None
    return adversarial


def labels_as(kind: Callable[[Tensor], Any]) -> Callable[[attacks.Attack], Tensor]:
    def call(attack: attacks.Attack) -> Tensor:
        classifier, images, labels = problem()
        return attack(classifier, images, kind(labels), epsilon=0.1)

    return call


CALLS: dict[str, Callable[[attacks.Attack], Tensor]] = {
    "no_grad": no_grad,
    "inference_mode": inference_mode,
    "tensors made in inference_mode": made_in_inference_mode,
    "images that require gradients": images_with_a_graph,
    "labels in 32 bits": labels_as(Tensor.int),
    "labels in a byte": labels_as(Tensor.byte),
    "labels in a list": labels_as(Tensor.tolist),
    "labels in an array": labels_as(Tensor.numpy),
}


@every_attack
def test_it_makes_no_difference_how_an_attack_is_called(
    name: str, create: Callable[[str], attacks.Attack]
) -> None:
    expected = create(name)(*problem(), epsilon=0.1)
    for how, call in CALLS.items():
        found = call(create(name))
        assert torch.equal(found, expected), how
        assert not found.requires_grad, how
        assert not found.is_inference(), how


def test_targets_in_a_list() -> None:
    classifier, images, labels = problem()
    targets = (labels + 1) % 5
    attack = attacks.create("mi_fgsm", steps=2, targeted=True)
    expected = attack.craft(classifier, images, labels, epsilon=0.1, targets=targets)
    with torch.inference_mode():
        found = attack.craft(classifier, images, labels.tolist(), epsilon=0.1, targets=targets.tolist())
    assert torch.equal(found.adversarial, expected.adversarial)
    assert found.targets is not None
    assert torch.equal(found.targets, targets)


@pytest.mark.parametrize("labels", [["cat", "dog"], [0.5, 1.0], [[0], [1]], None, torch.tensor([0j, 1j])], ids=str)
def test_labels_that_are_none_are_refused(labels: Any) -> None:
    classifier, images, _ = problem()
    with pytest.raises(UserError, match="labels must be integers, one per image"):
        attacks.create("fgsm")(classifier, images, labels, epsilon=0.1)


def test_images_that_are_no_tensor_are_refused() -> None:
    classifier, images, labels = problem()
    with pytest.raises(UserError, match="images must be a floating tensor"):
        attacks.create("fgsm")(classifier, images.numpy(), labels, epsilon=0.1)  # type: ignore[arg-type]


@every_attack
def test_a_classifier_that_draws_repeats(name: str, create: Callable[[str], attacks.Attack]) -> None:
    """From the seed, whatever was drawn before; and nothing is taken from the global generator."""
    classifier, images, labels = problem()
    found = []
    for start in (1, 2):
        torch.manual_seed(start)
        state = torch.get_rng_state()
        found.append(create(name)(Drawing(classifier), images, labels, epsilon=0.1, seed=3))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*found)
    other = create(name)(Drawing(classifier), images, labels, epsilon=0.1, seed=4)
    assert torch.equal(other, found[0]) == (name == "universal")


@every_attack
def test_half_precision_is_named_and_the_advice_helps(name: str, create: Callable[[str], attacks.Attack]) -> None:
    classifier, images, labels = problem()
    model, images = Tinted(copy.deepcopy(classifier)).half(), images.float()
    with pytest.raises(UserError, match=r"float16, the images float32.*\(model\.to\(torch\.float32\)\)") as caught:
        create(name)(model, images, labels, epsilon=0.1)
    assert "\n" not in str(caught.value)
    assert not torch.equal(create(name)(model.to(torch.float32), images, labels, epsilon=0.1), images)


def test_a_half_precision_classifier_that_converts_by_itself_is_attacked() -> None:
    class Converting(Around):
        def forward(self, pixels: Tensor) -> Tensor:
            return self.classifier(pixels.flatten(1).bfloat16()).float()

    model = Converting(nn.Linear(12, 5).bfloat16())
    images = torch.full((2, 3, 2, 2), 0.5)
    adversarial = attacks.create("fgsm")(model, images, [0, 1], epsilon=0.1)
    assert float((adversarial - images).abs().min()) > 0.09


@pytest.mark.parametrize("name", sorted(CHEAP.keys() - {"universal", "square"}))
def test_a_classifier_without_gradients_is_refused(name: str, create: Callable[[str], attacks.Attack]) -> None:
    classifier, images, labels = problem()
    with pytest.raises(UserError) as caught:
        create(name)(Cut(classifier), images, labels, epsilon=0.1)
    assert "\n" not in str(caught.value)


def test_weights_made_in_inference_mode_are_named() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    with pytest.raises(UserError, match=r"'1\.weight' was made inside torch\.inference_mode\(\)"):
        attacks.create("fgsm")(model, torch.rand(2, 3, 2, 2), [0, 1], epsilon=0.1)
