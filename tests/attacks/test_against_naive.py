"""The gradient attacks against naive float64 loops that are given the same random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from mergerisk import attacks
from mergerisk.errors import UserError
from mergerisk.randomness import ImageRandom
from tests.naive import attacks as naive
from tests.naive.models import ConstantClassifier, Recorder, StaircaseClassifier, smooth_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "i_fgsm": {},
    "pgd": {},
    "mi_fgsm": {},
    "ni_fgsm": {},
    "ti_fgsm": {"kernel_size": 5},
    "si_fgsm": {"scales": 3},
    "si_ni_fgsm": {"scales": 2},
    "admix": {"mixes": 2, "scales": 2},
    "ssa": {"spectra": 3},
    "bsr": {"shuffles": 2},
    "vmi_fgsm": {"neighbours": 3},
    "vni_fgsm": {"neighbours": 3},
    "pgn": {"neighbours": 3},
    "gra": {"neighbours": 3},
    "emi_fgsm": {"samples": 3},
    "mef": {"neighbours": 3},
    "sia": {"patchworks": 3},
    "decowa": {"warps": 1},
    "l2t": {"chains": 2, "learning_rate": 1e4},
    "stm": {"styles": 2, "style": "tests.naive.attacks.styles:tint"},
    "awt": {"neighbours": 2, "learning_rate": 0.1, "sharpness": 0.3},
}
"""Attacks that their own name describes, with a cost that tests can bear. DI comes further down."""

LOOP = ("steps", "step_size", "decay")


def parameters_of(name: str, loop: dict[str, Any]) -> dict[str, Any]:
    """The attack's own hyper-parameters and those of the loop, which FGSM has none of."""
    return OWN[name] | {key: value for key, value in loop.items() if name != "fgsm" or key not in LOOP}


def draws(count: int, *, seed: int = 0, indices: Sequence[int] | None = None) -> list[ImageRandom]:
    """One stream per image, as the attacks have them."""
    return [ImageRandom(seed, "attack", [index]) for index in (range(count) if indices is None else indices)]


def check(name: str, size: tuple[int, int, int, int], *, targets: Tensor | None = None, **settings: Any) -> None:
    """The attack and its transcription give the same images and the same counts."""
    classifier, images, labels = smooth_problem(*size)
    budget = {"epsilon": settings.pop("epsilon", 8 / 255), "norm": settings.pop("norm", "linf")}
    parameters = parameters_of(name, settings)
    attack = attacks.create(name, targeted=targets is not None, **parameters)
    crafted = attack.craft(classifier, images, labels, targets=targets, seed=4, **budget)
    traces = getattr(naive, name).trace(
        classifier, images, labels, targets=targets, draws=draws(len(images), seed=4), **budget, **parameters
    )
    expected = torch.stack([trace.path[-1] for trace in traces])
    torch.testing.assert_close(crafted.adversarial, expected, rtol=0, atol=1e-11)
    assert not torch.equal(crafted.adversarial, images)
    assert crafted.zero_gradients.tolist() == [trace.zero_gradients for trace in traces] == [0] * len(images)


# --- every attack ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(3, 3, 9, 7), (1, 1, 5, 5), (1, 3, 17, 16)], ids=str)
@pytest.mark.parametrize("name", OWN)
def test_matches_naive(name: str, size: tuple[int, int, int, int]) -> None:
    check(name, size, steps=4)


@pytest.mark.parametrize(
    "loop",
    [
        {"step_size": 0.003},
        {"step_size": 0.2},  # larger than the budget
        {"decay": 0.4},
        {"loss": "margin"},
        {"loss": "logit"},
        {"norm": "l2", "epsilon": 0.7},
        {"norm": "l2", "epsilon": 0.3, "step_size": 0.5, "decay": 0.4},
        {"norm": "l2", "epsilon": 6.0, "loss": "margin"},  # the box cuts what the ball allows
    ],
    ids=lambda loop: "-".join(f"{key}={value}" for key, value in loop.items()),
)
@pytest.mark.parametrize("name", OWN)
def test_matches_naive_in_every_setting(name: str, loop: dict[str, Any]) -> None:
    check(name, (2, 3, 6, 5), steps=3, **loop)


@pytest.mark.parametrize(("loss", "norm"), [("cross_entropy", "linf"), ("margin", "l2"), ("logit", "linf")])
@pytest.mark.parametrize("name", OWN)
def test_targeted_matches_naive(name: str, loss: str, norm: str) -> None:
    _, _, labels = smooth_problem(3, 2, 5, 6)
    check(name, (3, 2, 5, 6), targets=(labels + 2) % 4, loss=loss, norm=norm, epsilon=0.1, steps=3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ti_fgsm", {"kernel_size": 15, "sigma": 3.0, "decay": 0.0}),
        ("ti_fgsm", {"kernel_size": 3, "sigma": 2.0, "decay": 0.5}),
        ("si_fgsm", {"scales": 1}),
        ("admix", {"mixes": 1, "share": 0.7, "scales": 3}),
        ("ssa", {"spectra": 2, "spread": 0.9, "noise": 0.0}),
        ("ssa", {"spectra": 2, "spread": 0.0, "noise": 3.0}),
        ("bsr", {"shuffles": 2, "blocks": 1, "degrees": 180.0}),
        ("bsr", {"shuffles": 2, "blocks": 2, "degrees": 0.0}),
        ("bsr", {"shuffles": 1, "blocks": 8}),  # more blocks than pixels: some are empty
        ("ssa", {"spectra": 3, "gradient_at": "view"}),
        ("ssa", {"spectra": 2, "gradient_at": "view", "norm": "l2", "epsilon": 0.7}),
        ("bsr", {"shuffles": 2, "smallest": 0.5}),
        ("bsr", {"shuffles": 1, "blocks": 2, "smallest": 1.0}),
        ("vmi_fgsm", {"neighbours": 1, "radius": 0.5}),
        ("vni_fgsm", {"neighbours": 2, "neighbours_of": "look_ahead"}),
        ("vni_fgsm", {"neighbours": 1, "neighbours_of": "look_ahead", "decay": 0.4, "norm": "l2", "epsilon": 0.7}),
        ("pgn", {"neighbours": 2, "radius": 1.0, "balance": 0.9}),
        ("gra", {"neighbours": 2, "radius": 10.0, "shrink": 0.3}),
        ("emi_fgsm", {"samples": 4, "radius": 2.0, "decay": 0.3}),
        ("emi_fgsm", {"samples": 1, "radius": 0.5}),
        ("mef", {"neighbours": 2, "radius": 0.5, "inner_radius": 2.0, "inner_decay": 0.4, "decay": 1.0}),
        (
            "awt",
            {
                "neighbours": 1,
                "radius": 1.0,
                "balance": 0.9,
                "learning_rate": 0.3,
                "sharpness": 0.0,
                "inertia": 0.9,
            },
        ),
        ("decowa", {"warps": 2, "mesh": 4, "strength": 0.4, "constraint": 0.7}),
        ("l2t", {"chains": 4, "length": 3, "learning_rate": 3e5, "noise": 4.0, "leave_out": ["crop", "scale"]}),
        ("stm", {"styles": 3, "share": 0.0, "noise": 0.5}),
        ("stm", {"styles": 1, "share": 0.9, "noise": 0.0, "norm": "l2", "epsilon": 0.7}),
        ("sia", {"patchworks": 2, "blocks": 1, "leave_out": ["scale", "turn"]}),
        (
            "sia",
            {
                "patchworks": 4,
                "blocks": 2,
                "noise": 9.0,
                "leave_out": ["resize", "low_pass", "shift_rows", "turn"],
            },
        ),
        ("sia", {"patchworks": 2, "blocks": 9}),  # as many as there are pixels
    ],
    ids=str,
)
def test_own_parameters_match_naive(name: str, parameters: dict[str, Any]) -> None:
    check(name, (2, 3, 7, 6), steps=4, **parameters)


@pytest.mark.parametrize(
    "name",
    ["admix", "ssa", "bsr", "vmi_fgsm", "vni_fgsm", "pgn", "gra", "si_ni_fgsm", "emi_fgsm", "mef", "sia", "l2t"],
)
def test_defaults_match_naive(name: str) -> None:
    """As ``create(name)`` gives them, against those of the transcription."""
    classifier, images, labels = smooth_problem(2, 1, 4, 5)
    adversarial = attacks.create(name, steps=2)(classifier, images, labels, epsilon=0.05)
    expected = getattr(naive, name)(classifier, images, labels, epsilon=0.05, draws=draws(2), steps=2)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-11)


# --- Admix's partners ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_admix_partners_are_the_calls_images_in_the_order_of_their_identities(batch_size: int | None) -> None:
    classifier, images, labels = smooth_problem(5, 3, 6, 6)
    indices = [11, 3, 8, 0, 40]
    adversarial = attacks.create("admix", **OWN["admix"], steps=4)(
        classifier, images, labels, epsilon=0.06, indices=indices, batch_size=batch_size
    )
    expected = naive.admix(
        classifier,
        images,
        labels,
        epsilon=0.06,
        indices=indices,
        draws=draws(5, indices=indices),
        steps=4,
        **OWN["admix"],
    )
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-11)


def test_admix_mixes_nothing_in_where_all_images_have_one_label() -> None:
    classifier, images, _ = smooth_problem(3, 3, 6, 6)
    labels = torch.tensor([2, 2, 2])
    mixed = attacks.create("admix", mixes=2, scales=3, steps=4)(classifier, images, labels, epsilon=0.06)
    expected = naive.si_fgsm(classifier, images, labels, epsilon=0.06, scales=3, steps=4)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-11)


def test_admix_draws_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest number below 1 is 1 in float32, and there is no partner after the last."""
    largest = torch.tensor(1 - 2**-53, dtype=torch.float64)
    monkeypatch.setattr(ImageRandom, "uniform", lambda _, *shape, like: largest.expand(3, *shape).to(like))
    classifier, images, _ = smooth_problem(3, 3, 6, 6, dtype=torch.float32)
    recorder = Recorder(classifier)
    attacks.create("admix", mixes=1, scales=1, steps=1)(recorder, images, torch.tensor([0, 1, 2]), epsilon=0.06)
    expected = images + 0.2 * images[[2, 2, 1]]
    torch.testing.assert_close(recorder.seen[1], expected)


# --- L2T's operations and its learning -------------------------------------------------------------------


@pytest.mark.parametrize("family", naive.FAMILIES)
def test_l2t_matches_naive_in_every_operation(family: str) -> None:
    check("l2t", (2, 2, 9, 12), chains=6, length=1, steps=2, leave_out=sorted(naive.FAMILIES.keys() - {family}))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_l2t_of_untouched_images_is_mi_fgsm(norm: str) -> None:
    classifier, images, labels = smooth_problem(2, 3, 6, 5)
    only = sorted(naive.FAMILIES.keys() - {"identity"})
    attack = attacks.create("l2t", chains=2, steps=5, leave_out=only)
    expected = naive.mi_fgsm(classifier, images, labels, epsilon=0.05, norm=norm, steps=5)
    torch.testing.assert_close(
        attack(classifier, images, labels, epsilon=0.05, norm=norm), expected, rtol=0, atol=1e-11
    )


class BrightClassifier(nn.Module):
    """The brighter, the surer of class 0."""

    def forward(self, pixels: Tensor) -> Tensor:
        bright = 10 * pixels.flatten(1).mean(dim=1)
        return torch.stack([bright, -bright], dim=1)


@pytest.mark.parametrize(("rate", "learns"), [(0.0, False), (30.0, True)])
def test_l2t_learns_which_operations_raise_the_loss(rate: float, learns: bool) -> None:
    """Of the scales of an image, an image of class 0 learns to draw the dark ones, one of class 1 the bright ones."""
    only = sorted(naive.FAMILIES.keys() - {"identity", "scale"})
    images, steps, chains = torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64), 20, 10
    recorder = Recorder(BrightClassifier())
    attack = attacks.create("l2t", chains=chains, length=1, steps=steps, learning_rate=rate, leave_out=only)
    attack(recorder, images, torch.tensor([0, 1]), epsilon=1e-3)
    dark, bright = torch.stack(recorder.seen[-steps * chains // 4 :]).mean(dim=(0, 2, 3, 4)).tolist()
    at_first = 0.5 * (1 + sum((2 - 2 ** (1 - n)) / n for n in range(1, 11))) / 11
    assert (dark < 0.7 * at_first, bright > 1.3 * at_first) == (learns, learns)


def test_l2t_needs_an_operation() -> None:
    with pytest.raises(UserError, match="leave_out"):
        attacks.create("l2t", leave_out=sorted(naive.FAMILIES))


# --- input diversity and compositions --------------------------------------------------------------------


def read_choice(seen: Tensor) -> naive.Choice:
    """Where an all-bright picture C×H×W lies on its black canvas, and how large it is."""
    bright = seen[0] > 0.5
    rows, columns = bright.any(dim=1).nonzero().flatten(), bright.any(dim=0).nonzero().flatten()
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    assert bool(bright[top:bottom, left:right].all())
    assert int(bright.sum()) == (bottom - top) * (right - left)
    return naive.Choice(apply=True, size=(bottom - top, right - left), top=top, left=left)


def read_choices(
    classifier: nn.Module, images: Tensor, labels: Tensor, *, seed: int, **parameters: Any
) -> list[list[naive.Choice]]:
    """What DI draws for each image at each step.

    The draws depend on seed, image and step alone, so they can be read off a bright picture.
    """
    choices = []
    for index in range(len(images)):
        recorder = Recorder(classifier)
        attacks.create("di_fgsm", **parameters)(
            recorder, torch.ones_like(images[:1]), labels[:1], epsilon=0.05, seed=seed, indices=[index]
        )
        _, *seen = recorder.seen  # the first look counts the classes
        assert len(seen) == parameters["steps"]
        assert {shown.shape for shown in seen} == {images[:1].shape}, "the size must be kept"
        choices.append([read_choice(shown[0]) for shown in seen])
    return choices


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_di_fgsm_without_diversity_is_mi_fgsm(decay: float) -> None:
    classifier, images, labels = smooth_problem(3, 3, 9, 9)
    diverse = attacks.create("di_fgsm", probability=0.0, decay=decay, steps=7)(
        classifier, images, labels, epsilon=0.04, seed=3
    )
    expected = naive.mi_fgsm(classifier, images, labels, epsilon=0.04, decay=decay, steps=7)
    torch.testing.assert_close(diverse, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_di_fgsm_matches_naive(probability: float, norm: str) -> None:
    classifier, images, labels = smooth_problem(4, 3, 12, 12)
    parameters = {"probability": probability, "steps": 6}
    choices = read_choices(classifier, images, labels, seed=7, **parameters)
    moved = [choice for own in choices for choice in own if choice.size != (12, 12)]
    assert len({(choice.size, choice.top, choice.left) for choice in moved}) > 3, "the draws should vary"
    assert len({tuple(own) for own in choices}) == 4, "each image should have its own draws"
    adversarial = attacks.create("di_fgsm", **parameters)(
        classifier, images, labels, epsilon=0.05, norm=norm, seed=7
    )
    expected = naive.di_fgsm(classifier, images, labels, choices=choices, epsilon=0.05, norm=norm, steps=6)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_di_si_ti_mi_fgsm_matches_naive(norm: str) -> None:
    """Every diverse view is then scaled; what comes back is blurred."""
    classifier, images, labels = smooth_problem(3, 3, 12, 12)
    choices = read_choices(classifier, images, labels, seed=2, steps=4)
    composed = attacks.create("mi_fgsm", steps=4, inputs=["di", "si"], gradient=["ti"])
    adversarial = composed(classifier, images, labels, epsilon=0.1, norm=norm, seed=2)
    expected = naive.mi_fgsm(
        classifier,
        images,
        labels,
        epsilon=0.1,
        norm=norm,
        steps=4,
        inputs=[naive.diversified(choices), naive.scaled()],
        gradient=[naive.smoothed()],
    )
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "parts", "transcribed"),
    [
        ("ssa", {"inputs": [{"input": "admix", "scales": 2}]}, {"inputs": [naive.admixed(scales=2)]}),
        ("admix", {"inputs": [{"input": "ssa", "spectra": 2}]}, {"inputs": [naive.spectral(spectra=2)]}),
        ("si_ni_fgsm", {"inputs": [{"input": "bsr", "shuffles": 2}]}, {"inputs": [naive.block_shuffled(2)]}),
        ("ti_fgsm", {"gradient": [{"filter": "ti", "kernel_size": 3}]}, {"gradient": [naive.smoothed(3)]}),
        ("vmi_fgsm", {"inputs": ["si"], "gradient": ["ti"]}, {"inputs": [naive.scaled()], "gradient": [naive.smoothed()]}),
        ("pgn", {"inputs": [{"input": "ssa", "spectra": 2}]}, {"inputs": [naive.spectral(spectra=2)]}),
        ("gra", {"inputs": ["si"], "gradient": ["ti"]}, {"inputs": [naive.scaled()], "gradient": [naive.smoothed()]}),
        ("awt", {"inputs": [{"input": "ssa", "spectra": 2}]}, {"inputs": [naive.spectral(spectra=2)]}),
        ("decowa", {"inputs": ["si"], "gradient": ["ti"]}, {"inputs": [naive.scaled()], "gradient": [naive.smoothed()]}),
        ("l2t", {"inputs": ["si"], "gradient": ["ti"]}, {"inputs": [naive.scaled()], "gradient": [naive.smoothed()]}),
        ("stm", {"inputs": ["si"], "gradient": ["ti"]}, {"inputs": [naive.scaled()], "gradient": [naive.smoothed()]}),
        ("mef", {"inputs": [{"input": "sia", "patchworks": 2}]}, {"inputs": [naive.patched(2)]}),
        ("emi_fgsm", {"inputs": ["si"], "gradient": ["ti"]}, {"inputs": [naive.scaled()], "gradient": [naive.smoothed()]}),
        ("fgsm", {"inputs": ["si"], "gradient": ["ti"]}, {"inputs": [naive.scaled()], "gradient": [naive.smoothed()]}),
        ("pgd", {"inputs": [{"input": "ssa", "spectra": 2}]}, {"inputs": [naive.spectral(spectra=2)]}),
        ("ssa", {"gradient_at": "view", "inputs": ["si"]}, {"gradient_at": "view", "inputs": [naive.scaled()]}),
        ("vni_fgsm", {"neighbours_of": "look_ahead", "gradient": ["ti"]}, {"neighbours_of": "look_ahead", "gradient": [naive.smoothed()]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_own_parts_come_before_those_added(name: str, parts: dict[str, Any], transcribed: dict[str, Any]) -> None:
    classifier, images, labels = smooth_problem(3, 2, 7, 6)
    parameters = parameters_of(name, {"steps": 2})
    adversarial = attacks.create(name, **parameters, **parts)(classifier, images, labels, epsilon=0.05)
    expected = getattr(naive, name)(
        classifier, images, labels, epsilon=0.05, draws=draws(3), **parameters, **transcribed
    )
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-11)


# --- vanishing gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", [name for name in OWN if name != "pgd"])
def test_images_without_gradient_stay_as_they_are(name: str, norm: str) -> None:
    _, images, labels = smooth_problem(2, 3, 6, 6)
    attack = attacks.create(name, **parameters_of(name, {"steps": 3}))
    crafted = attack.craft(ConstantClassifier(), images, labels, epsilon=0.1, norm=norm)
    assert torch.equal(crafted.adversarial, images)
    assert crafted.zero_gradients.tolist() == [attack.iterations] * 2


@pytest.mark.parametrize(("name", "norm"), [*((name, "linf") for name in OWN), ("mi_fgsm", "l2"), ("gra", "l2")])
def test_vanished_gradients_do_not_freeze_an_image(name: str, norm: str) -> None:
    """On a flat the gradient is 0: momentum must carry on to where it comes back; other images must not notice."""
    generator = torch.Generator().manual_seed(1)
    images = 0.5 + 0.05 * torch.randn(4, 1, 6, 6, generator=generator, dtype=torch.float64)
    images, labels = images[[0, 1, 3]], torch.tensor([0, 1, 3])
    classifier = StaircaseClassifier(36, rise=1.0, flat=0.5)
    budget = {"epsilon": 0.15 if norm == "linf" else 0.9, "norm": norm}
    parameters = parameters_of(name, {"steps": 6, "loss": "logit"})
    crafted = attacks.create(name, **parameters).craft(classifier, images, labels, **budget)
    traces = getattr(naive, name).trace(classifier, images, labels, draws=draws(3), **budget, **parameters)
    assert bool(torch.isfinite(crafted.adversarial).all())
    expected = torch.stack([trace.path[-1] for trace in traces])
    torch.testing.assert_close(crafted.adversarial, expected, rtol=0, atol=1e-11)
    zero = [trace.zero_gradients for trace in traces]
    assert crafted.zero_gradients.tolist() == zero
    if (name, norm) == ("mi_fgsm", "linf"):
        assert all(0 < count < 4 for count in zero), "the test should meet flats, and leave them"
    if name == "i_fgsm":
        assert all(count >= 3 for count in zero), "without momentum, images should stay on their flat"


# --- logits that saturate --------------------------------------------------------------------------------


def test_float64_logits_keep_the_gradient_of_a_saturated_softmax() -> None:
    """In float32, 1 - p vanishes when the true class leads by 17; its logit then gets no gradient at all.

    The truth here, a plain float64 logsumexp, does the same from 36 on."""
    classifier, images, _ = smooth_problem(4, 3, 8, 8)
    classifier.last *= 14
    labels = classifier(images).argmax(dim=1)
    single = smooth_problem(4, 3, 8, 8, dtype=torch.float32)[0]
    single.last *= 14
    saturated = torch.softmax(single(images.float()), dim=1).amax(dim=1) == 1
    assert bool(saturated.any())
    expected = naive.fgsm(classifier, images, labels, epsilon=0.1)

    def agreement(**parameters: Any) -> Tensor:
        adversarial = attacks.create("fgsm", **parameters)(single, images.float(), labels, epsilon=0.1)
        return ((adversarial - expected).abs() < 1e-6).double().mean(dim=(1, 2, 3))

    assert float(agreement()[saturated].mean()) < 0.8
    assert bool((agreement(float64_logits=True) > 0.99).all())
