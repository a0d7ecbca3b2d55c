"""Mixed weights: where a mix lies, what its members were trained on, and what is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

import mergerisk as mr
from mergerisk.attacks.budget import L2Ball, LinfBall
from mergerisk.defenses import AdversarialTraining, mix_states
from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.errors import UserError
from tests.defenses.test_training import data_of
from tests.tiny import tiny_encoder

if TYPE_CHECKING:
    from mergerisk.models import Encoder

TRAINING = {"steps": 2, "batch_size": 8, "learning_rate": 0.01}


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in encoder.state().items() if tensor.is_floating_point()}


def test_a_robust_vector_is_what_robust_training_adds_to_the_base() -> None:
    merged, base, data = tiny_encoder(1), tiny_encoder(0), data_of()
    defense = mr.defenses.create("robust_vector", scale=0.6, by="fare", training=TRAINING)
    found = weights(defense.mix(merged, base, data, seed=3))
    robust = weights(DEFENSES.create("fare", TRAINING).train(base, data, seed=3))
    for name, start in weights(base).items():
        expected = weights(merged)[name] + 0.6 * (robust[name] - start)
        # Some roundings of numbers of size 1 in float32.
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6)
    assert not torch.equal(found["first.weight"], weights(merged)["first.weight"])
    assert int(defense.mix(merged, base, data).state()["counter"]) == 7


def test_a_robust_base_that_there_is_already_is_not_trained() -> None:
    merged, base, robust = tiny_encoder(1), tiny_encoder(0), tiny_encoder(2)
    found = weights(mr.defenses.create("robust_vector", scale=0.5).mix(merged, base, robust=robust))
    for name, start in weights(base).items():
        expected = weights(merged)[name] + 0.5 * (weights(robust)[name] - start)
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6)


def test_switched_off_a_mix_is_the_model_to_the_bit() -> None:
    merged = tiny_encoder(1)
    off = mr.defenses.create("robust_vector", scale=0).mix(merged, tiny_encoder(0))
    assert all(torch.equal(off.state()[name], tensor) for name, tensor in merged.state().items())


def test_a_soup_is_of_the_model_trained_in_one_norm_and_then_in_the_other() -> None:
    merged, data = tiny_encoder(1), data_of()
    first = DEFENSES.create("tecoa", {**TRAINING, "epsilon": 0.05}).train(merged, data, seed=4)
    second = DEFENSES.create("tecoa", {**TRAINING, "epsilon": 0.4, "norm": "l2"}).train(first, data, seed=4)
    for share in (0.3, 1.0, 1.4):
        defense = mr.defenses.create(
            "robust_soup", share=share, l2_epsilon=0.4, training={**TRAINING, "epsilon": 0.05}
        )
        found = weights(defense.mix(merged, tiny_encoder(0), data, seed=4))
        for name, tensor in weights(first).items():
            expected = share * tensor + (1 - share) * weights(second)[name]
            torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6)
    assert not torch.equal(first.state()["first.weight"], second.state()["first.weight"])


@pytest.mark.parametrize(("norm", "ball"), [("linf", LinfBall), ("l2", L2Ball)])
def test_the_worst_images_lie_within_the_norm_that_is_asked_for(norm: str, ball: Any) -> None:
    from tests.defenses.test_training import batch

    one, epsilon = batch(), 0.3
    defense = DEFENSES.create("tecoa", {"norm": norm, "epsilon": epsilon, "steps": 5})
    assert isinstance(defense, AdversarialTraining)
    found = defense.worst(one, one.classifier, lambda images: one.classifier(images).square().sum())
    lengths = ball(one.images, epsilon).lengths(found)
    assert float(lengths.max()) <= epsilon
    assert float(lengths.min()) > 0.9 * epsilon  # the ball is used up
    apart = (found - one.images).flatten(1)
    assert bool((apart.norm(dim=1) <= epsilon + 1e-9).all()) == (norm == "l2")


def test_models_of_two_architectures_are_not_mixed() -> None:
    one, other = ({"w": torch.zeros(2, count)} for count in (2, 3))
    with pytest.raises(UserError, match="what is mixed in"):
        mix_states([one, other], [0.5, 0.5])


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("robust_vector", {"scale": 3}, "scale"),
        ("robust_vector", {"by": "pubdef"}, "by: pubdef is no training that needs no public models"),
        ("robust_vector", {"by": "tecoaa"}, "unknown defense 'tecoaa' (did you mean 'tecoa'?)"),
        ("robust_vector", {"training": {"epsilon": 8}}, "epsilon: must be at most 1 in linf, got 8"),
        ("robust_soup", {"by": "sam"}, "by: sam is no training on the worst images"),
        ("robust_soup", {"training": {"norm": "l2"}}, "training: norm is the soup's own"),
        ("robust_soup", {"l2_epsilon": 0}, "l2_epsilon: must be above 0"),
    ],
)
def test_what_is_out_of_range_is_said(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        mr.defenses.create(name, **given)
