"""What every attack must keep to, whatever it does to find its images."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from mergerisk import attacks
from mergerisk.errors import UserError
from mergerisk.randomness import ImageRandom
from tests import rounding
from tests.naive.models import NanClassifier, Recorder, smooth_problem

PLAIN: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "i_fgsm": {},
    "pgd": {},
    "mi_fgsm": {},
    "ni_fgsm": {},
    "ti_fgsm": {},
    "di_fgsm": {"probability": 0.7},
    "si_fgsm": {"scales": 2},
    "si_ni_fgsm": {"scales": 2},
    "admix": {"mixes": 1, "scales": 2},
    "ssa": {"spectra": 2},
    "bsr": {"shuffles": 2},
    "vmi_fgsm": {"neighbours": 2},
    "vni_fgsm": {"neighbours": 2},
    "pgn": {"neighbours": 2},
    "gra": {"neighbours": 2},
    "emi_fgsm": {"samples": 2},
    "mef": {"neighbours": 2},
    "sia": {"patchworks": 2},
    "decowa": {"warps": 1},
    "l2t": {"chains": 2, "learning_rate": 1e4},
    "stm": {"styles": 2, "style": "tests.naive.attacks.styles:tint"},
    "awt": {"neighbours": 1},
    "feature": {"layer": "maps"},
    "ilpd": {"layer": "maps"},
    "fia": {"ensemble": 2, "layer": "maps"},
    "naa": {"integration": 2, "layer": "maps"},
    "apgd_ce": {},
    "apgd_dlr": {},
    "square": {"queries": 30},
}
"""Attacks that any small classifier will do for, with parameters that make them cheap."""
DEMANDING = {"pna_patchout", "tgr", "sgm", "att", "fpr", "universal"}
"""Attacks that need a certain architecture or a file; test_model_attacks.py and test_transformer_attacks.py have them."""
RANDOM = {
    "pgd",
    "di_fgsm",
    "admix",
    "ssa",
    "bsr",
    "vmi_fgsm",
    "vni_fgsm",
    "pgn",
    "gra",
    "mef",
    "sia",
    "decowa",
    "l2t",
    "stm",
    "awt",
    "feature",
    "ilpd",
    "fia",
    "apgd_ce",
    "apgd_dlr",
    "square",
}
TAKES_NO: dict[str, set[str]] = {
    "fgsm": {"steps", "step_size"},
    "apgd_ce": {"step_size"},
    "apgd_dlr": {"step_size"},
    "square": {"steps", "step_size", "inputs"},
}
"""Parameters of a loop that an attack goes without."""
MIXING = {"admix", "l2t"}
"""Attacks that put something of the call's other images into each."""
LABEL_FREE = {"feature"}
"""Attacks that no label can steer."""
CHOOSING = {"apgd_ce", "apgd_dlr", "square"}
"""Attacks that return the best of what they tried, and plan by the number of steps."""
NORMS = ["linf", "l2"]

every_attack = pytest.mark.parametrize("name", PLAIN)
every_norm = pytest.mark.parametrize("norm", NORMS)


def create(name: str, **parameters: Any) -> Any:
    """The attack, cheap, with those of the loop's parameters that it has."""
    parameters |= {"targeted": False} if name in LABEL_FREE else {}
    own = {key: value for key, value in parameters.items() if key not in TAKES_NO.get(name, set())}
    return attacks.create(name, **PLAIN[name], **own)


def test_no_attack_is_forgotten() -> None:
    own = {entry.name for entry in attacks.ATTACKS.entries() if entry.target.startswith("mergerisk.")}
    assert own == PLAIN.keys() | DEMANDING


# --- ball and box ----------------------------------------------------------------------------------------


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    """An attack, images (random or constant), labels, a budget and a step size."""
    count, channels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3]))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    norm = draw(st.sampled_from(NORMS))
    largest = 0.5 if norm == "linf" else 0.7 * (channels * height * width) ** 0.5
    epsilon = draw(st.one_of(st.just(0.0), st.floats(1e-4, largest), st.integers(1, 64).map(lambda n: n / 255)))
    return {
        "name": draw(st.sampled_from(sorted(PLAIN))),
        "size": (count, channels, height, width),
        "fill": draw(st.one_of(st.none(), st.none(), st.sampled_from([0.0, 1.0]), st.floats(0, 1))),
        "wrong": draw(st.booleans()),
        "norm": norm,
        "epsilon": epsilon,
        "step_size": draw(st.one_of(st.none(), st.floats(1e-3, 3.0))),
        "targeted": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float32, torch.float64])),
        "seed": draw(st.integers(0, 1000)),
    }


@given(situation=situations())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_never_outside_ball_or_box(situation: dict[str, Any]) -> None:
    """No tolerance: a stored budget of 8/255 must hold for every image in exact terms."""
    dtype, epsilon, norm = situation["dtype"], situation["epsilon"], situation["norm"]
    classifier, images, labels = smooth_problem(*situation["size"], seed=situation["seed"], dtype=dtype)
    if situation["fill"] is not None:
        images = torch.full_like(images, situation["fill"])
    if situation["wrong"]:
        labels = classifier(images).argmin(dim=1)
    attack = create(situation["name"], steps=3, step_size=situation["step_size"], targeted=situation["targeted"])
    before = images.clone()
    adversarial = attack(classifier, images, labels, epsilon=epsilon, norm=norm, seed=situation["seed"])
    assert torch.equal(images, before)
    assert adversarial.shape == images.shape
    assert adversarial.dtype == dtype
    assert not adversarial.requires_grad
    assert_within(adversarial, images, epsilon, norm)
    if epsilon == 0:
        assert torch.equal(adversarial, images)


def assert_within(adversarial: Tensor, images: Tensor, epsilon: float, norm: str) -> None:
    assert bool(torch.isfinite(adversarial).all())
    assert bool((lengths(adversarial, images, norm) <= epsilon).all())
    assert float(adversarial.min()) >= 0.0
    assert float(adversarial.max()) <= 1.0


def lengths(adversarial: Tensor, images: Tensor, norm: str) -> Tensor:
    """How far every image went, in float64."""
    change = (adversarial.double() - images.double()).flatten(1)
    return change.abs().amax(dim=1) if norm == "linf" else (change * change).sum(dim=1).sqrt()


@every_norm
@pytest.mark.parametrize("name", [name for name in PLAIN if name != "apgd_dlr"])  # whose best may lie inside
def test_the_whole_budget_is_used(name: str, norm: str) -> None:
    """The ball is closed: images, away from the box, reach its edge to float32 rounding: of the pixels and, where one
    step of length ε ends inside, of its direction's length."""
    classifier, images, labels = smooth_problem(3, 3, 8, 8, dtype=torch.float32)
    images = 0.3 + 0.4 * images
    pixels = images[0].numel()
    for epsilon in (2 / 255, 0.1):
        adversarial = create(name, steps=8)(classifier, images, labels, epsilon=epsilon, norm=norm)
        reached = lengths(adversarial, images, norm)
        lost = rounding.of_pixels(pixels) + epsilon * rounding.of_length(pixels) if norm == "l2" else rounding.UNIT
        assert bool((reached >= epsilon - lost).all())
        assert bool((reached <= epsilon).all())


@every_attack
def test_the_largest_draws_do_no_harm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest float64 below 1 becomes 1 in float32: one draw in 2²⁵ comes out so."""
    for method in ("uniform", "noise"):
        drawn = getattr(ImageRandom, method)

        def largest(*arguments: Any, drawn: Any = drawn, **named: Any) -> Tensor:
            found = drawn(*arguments, **named)
            return torch.full_like(found, 1 - 2**-53)

        monkeypatch.setattr(ImageRandom, method, largest)
    classifier, images, labels = smooth_problem(3, 3, 7, 6, dtype=torch.float32)
    adversarial = create(name, steps=2)(classifier, images, labels, epsilon=0.1)
    assert_within(adversarial, images, 0.1, "linf")
    assert not torch.equal(adversarial, images)


# --- images are attacked one by one ----------------------------------------------------------------------


@every_norm
@every_attack
def test_images_do_not_depend_on_their_batch(name: str, norm: str) -> None:
    classifier, images, labels = smooth_problem(5, 3, 8, 8, seed=4)
    indices = [11, 3, 8, 0, 40]
    attack = create(name, steps=4)
    common: dict[str, Any] = {"epsilon": 0.06, "norm": norm, "seed": 5}
    together = attack(classifier, images, labels, indices=indices, **common)
    in_twos = attack(classifier, images, labels, indices=indices, batch_size=2, **common)
    torch.testing.assert_close(in_twos, together, rtol=0, atol=1e-11)
    order = [3, 0, 4, 1, 2]
    shuffled = attack(classifier, images[order], labels[order], indices=torch.tensor(indices)[order], **common)
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-11)
    if name not in MIXING:
        alone = attack(classifier, images[2:3], labels[2:3], indices=[8], **common)
        torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-11)


@every_attack
def test_indices_default_to_positions_and_seeds_repeat(name: str) -> None:
    classifier, images, labels = smooth_problem(4, 3, 8, 8)
    attack = create(name, steps=3)
    torch.manual_seed(1)
    one = attack(classifier, images, labels, epsilon=0.06, seed=9)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two = attack(classifier, images, labels, epsilon=0.06, seed=9, indices=range(4))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state), "the global generator must be left alone"


@every_attack
def test_seed_and_indices_change_random_attacks_only(name: str) -> None:
    classifier, images, labels = smooth_problem(4, 3, 8, 8)
    attack = create(name, steps=3)
    one = attack(classifier, images, labels, epsilon=0.06, seed=0)
    two = attack(classifier, images, labels, epsilon=0.06, seed=1)
    three = attack(classifier, images, labels, epsilon=0.06, seed=0, indices=[4, 5, 6, 7])
    assert torch.equal(one, two) == torch.equal(one, three) == (name not in RANDOM)


@every_attack
def test_the_classifier_is_left_as_it_was(name: str) -> None:
    classifier, images, labels = smooth_problem(2, 3, 6, 6)
    classifier.train()
    for parameter in classifier.parameters():
        parameter.requires_grad_(True)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    create(name, steps=2)(classifier, images, labels, epsilon=0.1)
    for key, value in classifier.state_dict().items():
        assert torch.equal(value, before[key])
    for parameter in classifier.parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
    assert classifier.training
    assert not classifier.maps._forward_hooks


# --- what a run tells ------------------------------------------------------------------------------------


@every_norm
@pytest.mark.parametrize("name", [name for name in PLAIN if name not in CHOOSING | {"fgsm"}])
def test_iterates_on_the_way_are_those_of_shorter_runs(name: str, norm: str) -> None:
    classifier, images, labels = smooth_problem(3, 3, 7, 6)
    common: dict[str, Any] = {"epsilon": 0.2, "norm": norm, "seed": 3, "batch_size": 2}
    crafted = create(name, steps=5, step_size=0.03).craft(classifier, images, labels, after=[1, 4], **common)
    assert sorted(crafted.after) == [1, 4]
    for steps, found in crafted.after.items():
        shorter = create(name, steps=steps, step_size=0.03)(classifier, images, labels, **common)
        torch.testing.assert_close(found, shorter, rtol=0, atol=1e-12)


def test_an_attack_of_one_s_own_tells_its_iterates_too() -> None:
    class Brighter(attacks.Attack):
        iterations = 3

        def perturb(self, problem: attacks.Problem) -> attacks.Crafted:
            made = {step: problem.ball.project(problem.images + step / 100) for step in range(1, 4)}
            return attacks.Crafted(made[3], problem.labels, after={step: made[step] for step in problem.after})

    classifier, images, labels = smooth_problem(5, 3, 7, 6)
    crafted = Brighter().craft(classifier, images, labels, epsilon=0.02, after=[1], batch_size=2)
    assert torch.equal(crafted.zero_gradients, labels)
    torch.testing.assert_close(crafted.after[1], (images + 0.01).clamp(max=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(crafted.adversarial, (images + 0.02).clamp(max=1), rtol=0, atol=1e-12)
    with pytest.raises(TypeError, match="abstract"):
        attacks.Attack()  # type: ignore[abstract]


@pytest.mark.parametrize(
    "name", [name for name in PLAIN if name not in {"fia", "naa", "feature", "ilpd", "square"}]
)
def test_gradients_per_image_are_those_taken(name: str) -> None:
    """Those that are left out also stop at a layer, so that counting whole passes says nothing of them."""
    classifier, images, labels = smooth_problem(2, 3, 7, 6)
    recorder = Recorder(classifier)
    attack = create(name, steps=4, inputs=[{"input": "si", "scales": 2}])
    attack(recorder, images, labels, epsilon=0.1)
    counted, *seen = recorder.seen
    assert len(counted) == 1, "one image tells the number of classes"
    assert sum(map(len, seen)) == 2 * attack.gradients_per_image


@pytest.mark.parametrize("name", [name for name in PLAIN if name not in LABEL_FREE])
def test_default_targets_are_other_classes_and_belong_to_the_image(name: str) -> None:
    classifier, images, _ = smooth_problem(40, 1, 2, 2)
    labels = torch.arange(40) % 4
    crafted = create(name, steps=1, targeted=True).craft(classifier, images, labels, epsilon=0.1, seed=2)
    assert crafted.targets is not None
    assert {(int(a), int(b)) for a, b in zip(labels, crafted.targets, strict=True)} == {
        (a, b) for a in range(4) for b in range(4) if a != b
    }
    part = create(name, steps=1, targeted=True).craft(
        classifier, images[7:9], labels[7:9], epsilon=0.1, seed=2, indices=[7, 8]
    )
    assert torch.equal(part.targets, crafted.targets[7:9])


# --- what is refused -------------------------------------------------------------------------------------


@every_attack
def test_nan_logits_are_refused(name: str) -> None:
    _, images, labels = smooth_problem(2, 3, 6, 6)
    with pytest.raises(UserError):
        create(name)(NanClassifier(), images, labels, epsilon=0.1)


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 4]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([0.0, 1.0])], ids=str
)
@every_attack
def test_labels_that_do_not_fit_are_refused(name: str, labels: Tensor) -> None:
    classifier, images, _ = smooth_problem(2, 3, 6, 6)
    with pytest.raises(UserError, match="label"):
        create(name)(classifier, images, labels, epsilon=0.1)


@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([0, 4]),
        torch.tensor([-1, 0]),
        torch.tensor([2, 3, 0]),
        torch.tensor([2.0, 3.0]),
        torch.tensor([0, 3]),  # the first is the label itself
    ],
    ids=str,
)
def test_targets_that_do_not_fit_are_refused(targets: Tensor) -> None:
    classifier, images, _ = smooth_problem(2, 3, 6, 6)
    with pytest.raises(UserError, match="target"):
        create("mi_fgsm", targeted=True)(classifier, images, torch.tensor([0, 1]), epsilon=0.1, targets=targets)


def test_targets_of_an_untargeted_attack_are_refused() -> None:
    classifier, images, labels = smooth_problem(2, 3, 6, 6)
    with pytest.raises(UserError, match="target"):
        create("mi_fgsm")(classifier, images, labels, epsilon=0.1, targets=(labels + 1) % 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": -0.1},
        {"epsilon": 1.1},
        {"epsilon": float("nan")},
        {"epsilon": 100.0, "norm": "l2"},
        {"norm": "l1"},
        {"after": [0]},
        {"after": [10]},
        {"indices": [1]},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_budgets_and_requests_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    classifier, images, labels = smooth_problem(2, 3, 6, 6)
    recorder = Recorder(classifier)
    with pytest.raises(UserError):
        create("mi_fgsm").craft(recorder, images, labels, **({"epsilon": 0.1} | wrong))
    assert len(recorder.seen) <= 1, "before any of the work"


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_images_out_of_range_are_refused(value: float) -> None:
    classifier, images, labels = smooth_problem(2, 3, 6, 6)
    images[1, 2, 3, 4] = value
    with pytest.raises(UserError, match="image"):
        create("mi_fgsm")(classifier, images, labels, epsilon=0.1)


@every_attack
def test_no_images_give_no_images(name: str) -> None:
    classifier, images, labels = smooth_problem(2, 3, 6, 6)
    crafted = create(name).craft(classifier, images[:0], labels[:0], epsilon=0.1)
    assert crafted.adversarial.shape == (0, 3, 6, 6)
    assert crafted.zero_gradients.shape == (0,)
