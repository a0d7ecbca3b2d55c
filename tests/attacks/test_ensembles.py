"""How ensembles are followed, against naive float64 loops that are given the same random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from mergerisk import attacks
from mergerisk.errors import UserError
from mergerisk.randomness import ImageRandom
from tests.naive.attacks import ensembles as naive
from tests.naive.attacks import scaled
from tests.naive.models import Recorder, SmoothClassifier, smooth_problem

if TYPE_CHECKING:
    from torch import Tensor

SIZE = (3, 3, 6, 5)
NAMES = ("svre", "cwa", "adaea", "smer")


def problem(name: str, combine: Any = "logits", members: int = 3, **own: Any) -> Any:
    _, images, labels = smooth_problem(*SIZE)
    models = [SmoothClassifier(*SIZE[1:], seed=seed).eval() for seed in range(members)]
    return attacks.Ensemble(models, combine, attacks.create_algorithm(name, **own)), images, labels


def draws(seed: int) -> list[ImageRandom]:
    return [ImageRandom(seed, "attack", [index]) for index in range(SIZE[0])]


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({}, {}),
        ({"norm": "l2", "epsilon": 0.6, "decay": 0.5}, {}),
        ({"combine": "loss", "step_size": 0.01}, {"svre": {"updates": 2}, "smer": {"rounds": 2, "rate": 0.3}}),
        ({"inputs": 3}, {"adaea": {"beta": 1.0, "threshold": 0.1}}),
    ],
    ids=["linf", "l2", "loss", "views"],
)
@pytest.mark.parametrize("name", NAMES)
def test_matches_naive(name: str, settings: dict[str, Any], own: dict[str, dict[str, Any]]) -> None:
    settings = {"epsilon": 16 / 255, "norm": "linf", **settings}
    ensemble, images, labels = problem(name, settings.pop("combine", "logits"), **own.get(name, {}))
    scales = settings.pop("inputs", None)
    budget = {key: settings.pop(key) for key in ("epsilon", "norm")}
    inputs = [{"input": "si", "scales": scales}] if scales else []
    attack = attacks.create("mi_fgsm", steps=3, inputs=inputs, **settings)
    found = attack.craft(ensemble, images, labels, seed=4, **budget)
    views = [scaled(scales)] if scales else []
    expected = getattr(naive, name)(
        ensemble, images, labels, steps=3, draws=draws(4), inputs=views, **budget, **settings, **own.get(name, {})
    )
    torch.testing.assert_close(found.adversarial, expected, rtol=0, atol=1e-9)
    plain = attack(attacks.Ensemble(ensemble.members), images, labels, seed=4, **budget)
    assert not torch.allclose(found.adversarial, plain, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_crafted_as_it_is_alone(name: str) -> None:
    """What is drawn, carried and weighed belongs to the image, not to its batch."""
    ensemble, images, labels = problem(name)
    attack = attacks.create("mi_fgsm", steps=2)

    def craft(batch_size: int | None) -> Tensor:
        return attack(ensemble, images, labels, epsilon=0.05, indices=[7, 2, 5], batch_size=batch_size)

    torch.testing.assert_close(craft(1), craft(None), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "gradients", "answers"), [("svre", 12, 0), ("cwa", 4, 0), ("adaea", 4, 4), ("smer", 8, 16)]
)
def test_costs_what_it_says(name: str, gradients: int, answers: int) -> None:
    """Of two members; an answer without a graph is two fifths of a gradient, rounded up once a round."""
    ensemble, images, labels = problem(name, members=2)
    recorders = [Recorder(member) for member in ensemble.members]
    algorithm = ensemble.algorithm
    recorded = attacks.Ensemble(recorders, algorithm=algorithm)
    attacks.create("i_fgsm", steps=1)(recorded, images, labels, epsilon=0.05)
    shown = sum(len(batch) for recorder in recorders for batch in recorder.seen)
    assert shown == (gradients + answers) * len(images) + 2  # the first look is at one image
    assert 0 <= algorithm.passes(2) - (gradients + 0.4 * answers) < 4


def test_what_cannot_follow_members_says_so() -> None:
    ensemble, images, labels = problem("adaea")
    with pytest.raises(UserError, match="AdaEA: it is defined for untargeted attacks alone"):
        attacks.create("mi_fgsm", targeted=True)(ensemble, images, labels, epsilon=0.1)
    with pytest.raises(UserError, match="AdaEA: APGD takes gradients in a way of its own"):
        attacks.create("apgd_ce")(ensemble, images, labels, epsilon=0.1)
    # Who follows no gradient asks for what the members say together.
    plain = attacks.Ensemble(ensemble.members)
    square = attacks.create("square", queries=5)
    assert torch.equal(square(ensemble, images, labels, epsilon=0.1), square(plain, images, labels, epsilon=0.1))
    with pytest.raises(UserError, match="at least two"):
        attacks.Ensemble([plain], algorithm=ensemble.algorithm)
    with pytest.raises(UserError, match="did you mean 'svre'"):
        attacks.create_algorithm("svr")
