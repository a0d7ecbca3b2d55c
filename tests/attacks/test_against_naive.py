"""The gradient attacks against naive float64 loops, and properties every attack must have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from mergerisk import attacks
from mergerisk.errors import UserError
from tests.naive import attacks as naive
from tests.naive.models import ConstantClassifier, NanClassifier, SmoothClassifier

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ["fgsm", "i_fgsm", "mi_fgsm", "ni_fgsm", "ti_fgsm", "di_fgsm"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These tensors are tiny: with several workers, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class PlateauClassifier(nn.Module):
    """Class 0 against the rest by ``clamp(w·(x - 0.5), -edge, edge)``: no gradient beyond the edge."""

    def __init__(self, size: int, edge: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.register_buffer("weight", torch.randn(size, generator=generator, dtype=torch.float64))
        self.edge = edge

    def forward(self, pixels: Tensor) -> Tensor:
        score = ((pixels - 0.5).flatten(1) @ self.weight.to(pixels.dtype)).clamp(-self.edge, self.edge)
        return torch.stack([score, -score, -score, -score], dim=1)


class Recorder(nn.Module):
    """Keeps a copy of every batch the classifier is shown."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.seen: list[Tensor] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels.detach().clone())
        return self.classifier(pixels)


def problem(
    count: int, channels: int, height: int, width: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[nn.Module, Tensor, Tensor]:
    """A smooth classifier, images of which some pixels lie at 0 and 1, and labels of which some are wrong."""
    generator = torch.Generator().manual_seed(seed)
    classifier = SmoothClassifier(channels, height, width, seed=seed).to(dtype).eval()
    images = torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64) * 1.3 - 0.15
    labels = torch.randint(0, 4, (count,), generator=generator)
    return classifier, images.clamp(0, 1).to(dtype), labels


def create(name: str, **parameters: Any) -> Any:
    """The attack with those of ``parameters`` that it has."""
    if name == "fgsm":
        parameters = {}
    if name == "i_fgsm":
        parameters.pop("decay", None)
    return attacks.create(name, **parameters)


# --- equality with the naive loops -----------------------------------------------------------------------

SIZES = [(3, 3, 9, 7), (1, 1, 5, 5), (2, 3, 17, 16)]
SETTINGS: list[dict[str, Any]] = [
    {"steps": 10},
    {"steps": 5, "step_size": 0.003},
    {"steps": 4, "step_size": 0.2},  # larger than the budget
    {"steps": 6, "decay": 0.4},
]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("parameters", SETTINGS, ids=lambda found: "-".join(f"{k}={v}" for k, v in found.items()))
@pytest.mark.parametrize("name", ["i_fgsm", "mi_fgsm", "ni_fgsm", "ti_fgsm"])
def test_matches_naive(name: str, parameters: dict[str, Any], size: tuple[int, int, int, int]) -> None:
    parameters = {key: value for key, value in parameters.items() if name != "i_fgsm" or key != "decay"}
    classifier, images, labels = problem(*size)
    adversarial = create(name, **parameters)(classifier, images, labels, epsilon=8 / 255, seed=0)
    expected = getattr(naive, name)(classifier, images, labels, epsilon=8 / 255, **parameters)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-12)
    assert not torch.equal(adversarial, images)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("epsilon", [1 / 255, 8 / 255, 0.3])
def test_fgsm_matches_naive(epsilon: float, size: tuple[int, int, int, int]) -> None:
    classifier, images, labels = problem(*size)
    adversarial = create("fgsm")(classifier, images, labels, epsilon=epsilon, seed=0)
    expected = naive.fgsm(classifier, images, labels, epsilon=epsilon)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel_size", "sigma", "decay"),
    [(15, 3.0, 0.0), (15, 3.0, 1.0), (7, 3.0, 1.0), (5, 1.5, 0.0), (3, 2.0, 0.5)],
)
def test_ti_fgsm_kernels_match_naive(kernel_size: int, sigma: float, decay: float) -> None:
    parameters: dict[str, Any] = {"kernel_size": kernel_size, "sigma": sigma, "decay": decay, "steps": 6}
    classifier, images, labels = problem(2, 2, 11, 10)
    adversarial = create("ti_fgsm", **parameters)(classifier, images, labels, epsilon=0.05, seed=0)
    expected = naive.ti_fgsm(classifier, images, labels, epsilon=0.05, **parameters)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_di_fgsm_without_diversity_is_mi_fgsm(decay: float) -> None:
    classifier, images, labels = problem(3, 3, 9, 9)
    diverse = create("di_fgsm", probability=0.0, decay=decay, steps=7)(
        classifier, images, labels, epsilon=0.04, seed=3
    )
    plain = create("mi_fgsm", decay=decay, steps=7)(classifier, images, labels, epsilon=0.04, seed=0)
    assert torch.equal(diverse, plain)
    expected = naive.mi_fgsm(classifier, images, labels, epsilon=0.04, decay=decay, steps=7)
    torch.testing.assert_close(diverse, expected, rtol=0, atol=1e-12)


def read_choice(seen: Tensor) -> naive.Choice:
    """Where an all-bright picture C×H×W lies on its black canvas, and how large it is."""
    bright = seen[0] > 0.5
    rows, columns = bright.any(dim=1).nonzero().flatten(), bright.any(dim=0).nonzero().flatten()
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    assert bool(bright[top:bottom, left:right].all())
    assert int(bright.sum()) == (bottom - top) * (right - left)
    return naive.Choice(apply=True, size=(bottom - top, right - left), top=top, left=left)


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_di_fgsm_matches_naive_with_the_same_draws(probability: float) -> None:
    """The draws depend on seed, image id and step alone, so they can be read off a bright picture first."""
    steps, epsilon = 8, 0.05
    classifier, images, labels = problem(4, 3, 12, 12)
    attack = create("di_fgsm", probability=probability, steps=steps)
    choices = []
    for index in range(4):
        recorder = Recorder(classifier)
        attack(recorder, torch.ones_like(images[:1]), labels[:1], epsilon=epsilon, seed=7, indices=[index])
        assert len(recorder.seen) == steps
        assert {tuple(seen.shape) for seen in recorder.seen} == {(1, 3, 12, 12)}, "the size must be kept"
        choices.append([read_choice(seen[0]) for seen in recorder.seen])
    moved = [choice for own in choices for choice in own if choice.size != (12, 12)]
    assert len({(choice.size, choice.top, choice.left) for choice in moved}) > 3, "the draws should vary"
    assert len({tuple(own) for own in choices}) == 4, "each image should have its own draws"
    adversarial = attack(classifier, images, labels, epsilon=epsilon, seed=7)
    expected = naive.di_fgsm(classifier, images, labels, choices, epsilon=epsilon, steps=steps)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-12)


# --- vanishing gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_images_without_gradient_stay_as_they_are(name: str) -> None:
    _, images, labels = problem(2, 3, 6, 6)
    adversarial = create(name)(ConstantClassifier(), images, labels, epsilon=0.1, seed=0)
    assert torch.equal(adversarial, images)


@pytest.mark.parametrize("name", ["i_fgsm", "mi_fgsm", "ni_fgsm", "ti_fgsm"])
def test_one_vanished_gradient_does_not_freeze_an_image(name: str) -> None:
    """After the edge the gradient is 0: momentum must carry on, and other images must not notice."""
    images = 0.5 + 0.05 * torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 1, 0])
    classifier = PlateauClassifier(36, edge=1.5)
    first = create(name, steps=1)(classifier, images, labels, epsilon=0.2, seed=0)
    adversarial = create(name, steps=8)(classifier, images, labels, epsilon=0.2, seed=0)
    expected = getattr(naive, name)(classifier, images, labels, epsilon=0.2, steps=8)
    assert bool(torch.isfinite(adversarial).all())
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-12)
    if name != "i_fgsm":
        assert float((adversarial - images).abs().max()) > float((first - images).abs().max()) + 0.01


# --- properties ------------------------------------------------------------------------------------------


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    """An attack, images (random, all 0, all 1, or any constant), labels, a budget and a step size."""
    count, channels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3]))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    epsilon = draw(st.one_of(st.integers(1, 64).map(lambda n: n / 255), st.floats(1e-4, 0.5)))
    step_size = draw(st.one_of(st.none(), st.floats(0.1, 3.0).map(lambda factor: factor * epsilon)))
    return {
        "name": draw(st.sampled_from(NAMES)),
        "size": (count, channels, height, width),
        "fill": draw(st.one_of(st.none(), st.sampled_from([0.0, 1.0]), st.floats(0, 1))),
        "wrong": draw(st.booleans()),
        "epsilon": epsilon,
        "step_size": step_size,
        "dtype": draw(st.sampled_from([torch.float32, torch.float32, torch.float64])),
        "seed": draw(st.integers(0, 1000)),
    }


@given(situation=situations())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_never_outside_ball_or_box(situation: dict[str, Any]) -> None:
    """No tolerance: a stored budget of 8/255 must hold for every pixel in exact terms."""
    dtype, epsilon = situation["dtype"], situation["epsilon"]
    classifier, images, labels = problem(*situation["size"], seed=situation["seed"], dtype=dtype)
    if situation["fill"] is not None:
        images = torch.full_like(images, situation["fill"])
    if situation["wrong"]:
        with torch.no_grad():
            labels = classifier(images).argmin(dim=1)
    attack = create(situation["name"], steps=4, step_size=situation["step_size"])
    before = images.clone()
    adversarial = attack(classifier, images, labels, epsilon=epsilon, seed=situation["seed"])
    assert torch.equal(images, before)
    assert adversarial.shape == images.shape
    assert adversarial.dtype == dtype
    assert not adversarial.requires_grad
    assert bool(torch.isfinite(adversarial).all())
    assert bool(((adversarial.double() - images.double()).abs() <= epsilon).all())
    assert float(adversarial.min()) >= 0.0
    assert float(adversarial.max()) <= 1.0


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_budget_is_used(name: str) -> None:
    """The ball is closed: with ten steps of a quarter some pixels reach its edge, to float32 rounding."""
    classifier, images, labels = problem(4, 3, 12, 12, dtype=torch.float32)
    for epsilon in (2 / 255, 8 / 255, 0.1):
        adversarial = create(name)(classifier, images, labels, epsilon=epsilon, seed=0)
        reached = float((adversarial.double() - images.double()).abs().max())
        assert epsilon - 2e-7 <= reached <= epsilon


@pytest.mark.parametrize("name", NAMES)
def test_images_do_not_depend_on_their_batch(name: str) -> None:
    classifier, images, labels = problem(5, 3, 10, 10, seed=4)
    indices = [11, 3, 8, 0, 40]
    attack = create(name)
    together = attack(classifier, images, labels, epsilon=0.06, seed=5, indices=indices)
    alone = [
        attack(classifier, images[i : i + 1], labels[i : i + 1], epsilon=0.06, seed=5, indices=[indices[i]])
        for i in range(5)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)
    order = [3, 0, 4, 1, 2]
    shuffled = attack(
        classifier, images[order], labels[order], epsilon=0.06, seed=5, indices=torch.tensor(indices)[order]
    )
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_indices_default_to_positions_and_seeds_repeat(name: str) -> None:
    classifier, images, labels = problem(4, 3, 10, 10)
    attack = create(name)
    torch.manual_seed(1)
    one = attack(classifier, images, labels, epsilon=0.06, seed=9)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two = attack(classifier, images, labels, epsilon=0.06, seed=9, indices=range(4))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state), "the global generator must be left alone"


def test_seed_and_indices_change_di_fgsm_only() -> None:
    classifier, images, labels = problem(4, 3, 10, 10)
    for name in NAMES:
        attack = create(name)
        one = attack(classifier, images, labels, epsilon=0.06, seed=0)
        two = attack(classifier, images, labels, epsilon=0.06, seed=1)
        three = attack(classifier, images, labels, epsilon=0.06, seed=0, indices=[4, 5, 6, 7])
        assert torch.equal(one, two) == (name != "di_fgsm")
        assert torch.equal(one, three) == (name != "di_fgsm")


@pytest.mark.parametrize("name", NAMES)
def test_nan_logits_are_refused(name: str) -> None:
    _, images, labels = problem(2, 3, 6, 6)
    with pytest.raises(UserError):
        create(name)(NanClassifier(), images, labels, epsilon=0.1, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_is_left_as_it_was(name: str) -> None:
    classifier, images, labels = problem(2, 3, 6, 6)
    for parameter in classifier.parameters():
        parameter.requires_grad_(True)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    create(name)(classifier, images, labels, epsilon=0.1, seed=0)
    for key, value in classifier.state_dict().items():
        assert torch.equal(value, before[key])
    for parameter in classifier.parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
