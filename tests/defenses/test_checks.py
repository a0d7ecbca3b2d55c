"""Signs that attacks on a defense failed for a reason of their own: by hand, and on planted defenses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import mergerisk as mr
from mergerisk.defenses import CHECKS, Defense, Evidence, check, checks, defends, gather, not_shown, pooled
from mergerisk.errors import UserError
from tests.defenses.pictures import Linear

if TYPE_CHECKING:
    from torch import nn

N = 40
EPSILON = 0.1


def first(count: int) -> np.ndarray:
    """The first so many of the images are fooled."""
    return np.arange(N) < count


def sound() -> dict[str, Any]:
    """Evidence of a defense against which attacks do as they should."""
    return {
        "white_box": first(20),
        "transferred": {"undefended": first(8), "base": first(4)},
        "by_epsilon": {0.1: first(20), 1.0: first(N)},
        "by_steps": {1: first(3), 10: first(15), 20: first(20)},
        "noise": first(1),
        "queried": first(12),
        "flat_steps": np.zeros(N, dtype=np.int64),
        "losses": np.tile([0.0, 1.0, *[2.0] * 18], (N, 1)),
        "restarts": np.stack([first(20), first(20), first(20)]),
    }


def test_sound_evidence_passes() -> None:
    results = check(Evidence(**sound()))
    assert tuple(result.name for result in results) == CHECKS
    assert defends(results)
    assert not_shown(results) == ()


@pytest.mark.parametrize(
    ("changed", "name", "figure"),
    [
        ({"transferred": {"base": first(4), "undefended": first(26)}}, "transfer_is_no_stronger", 6 / 40),
        ({"by_epsilon": {0.1: first(N), 1.0: first(39)}}, "all_fall_in_the_end", 39 / 40),
        ({"by_steps": {1: first(20), 20: first(20)}}, "steps_help", 0.0),
        ({"by_steps": {1: first(2), 10: first(30), 20: first(20)}}, "steps_help", 18 / 40),
        ({"noise": first(3)}, "noise_fails", 3 / 40),
        ({"queried": first(25)}, "queries_are_no_stronger", 5 / 40),
        ({"flat_steps": first(1).astype(np.int64)}, "gradients_are_there", 1.0),
        ({"losses": np.tile(np.arange(20.0), (N, 1))}, "loss_has_settled", 2 / 19),
        ({"losses": np.ones((N, 20))}, "loss_has_settled", math.inf),
        ({"restarts": np.stack([first(10), ~first(34)])}, "restarts_change_nothing", 16 / 40 - 8 / 40),
    ],
)
def test_each_sign_is_found_and_no_other(changed: dict[str, Any], name: str, figure: float) -> None:
    results = check(Evidence(**(sound() | changed)))
    assert not_shown(results) == (name,)
    result = next(one for one in results if one.name == name)
    assert result.passed is False
    assert result.figure == pytest.approx(figure)
    assert not defends(results)


def test_a_lead_that_chance_explains_is_none() -> None:
    """Four against none: 1/16; five against none: 1/32, below 5 %."""
    for lead, passed in ((4, True), (5, False)):
        result = checks.queries_are_no_stronger(first(20), first(20 + lead))
        assert result.passed is passed
        assert result.figure == pytest.approx(lead / N)
    assert checks.queries_are_no_stronger(first(N), first(0)).passed
    assert checks.queries_are_no_stronger(first(0), first(0)).passed


def test_all_fooled_by_any_number_of_steps_is_no_fault() -> None:
    assert checks.steps_help({1: first(N), 20: first(N)}).passed


@pytest.mark.parametrize("left_out", sorted(sound()))
def test_what_was_not_tried_is_missing_and_refuses_the_word(left_out: str) -> None:
    evidence = {key: value for key, value in sound().items() if key != left_out}
    results = check(Evidence(**evidence))
    missing = [result.name for result in results if result.passed is None]
    assert len(missing) == (2 if left_out == "white_box" else 1)
    assert all(math.isnan(result.figure) for result in results if result.passed is None)
    assert list(not_shown(results)) == missing
    assert not defends(results)
    assert not defends(result for result in check(Evidence(**sound())) if result.name != missing[0])


def test_few_images_say_nothing() -> None:
    few = Evidence(white_box=np.ones(19, dtype=bool), noise=np.zeros(19, dtype=bool))
    assert {result.passed for result in check(few)} == {None}
    assert not defends(check(few))
    assert not defends([])


def test_parts_of_the_images_say_what_all_of_them_say() -> None:
    whole = Evidence(**sound())

    def part(rows: slice, largest: float) -> Evidence:
        cut = {
            name: {key: value[rows] for key, value in given.items()}
            if isinstance(given, dict)
            else given[:, rows]
            if name == "restarts"
            else given[rows]
            for name, given in sound().items()
        }
        cut["by_epsilon"] = {0.1: cut["by_epsilon"][0.1], largest: cut["by_epsilon"][1.0]}
        return Evidence(**cut)

    # What holds every image is larger where images are.
    joined = pooled([part(slice(0, 15), 1.0), Evidence(), part(slice(15, N), 2.0)])
    assert [(one.passed, one.figure) for one in check(joined)] == [
        (one.passed, one.figure) for one in check(whole)
    ]
    lacking = pooled([part(slice(0, 15), 1.0), replace(part(slice(15, N), 1.0), noise=None)])
    assert not_shown(check(lacking)) == ("noise_fails",)
    assert pooled([]).images == 0


def test_outcomes_of_other_images_are_refused() -> None:
    with pytest.raises(UserError, match="same images"):
        Evidence(white_box=first(3), noise=np.zeros(7, dtype=bool))


# --- planted defenses ------------------------------------------------------------------------------------


class Quantised(Defense):
    """Five levels, and no attacker around them: gradients are zero everywhere."""

    def defend(self, classifier: nn.Module) -> nn.Module:
        return mr.defenses.bpda(classifier, lambda images: (images * 4).round() / 4, lambda images: images * 0)


class Wider(Defense):
    """The classifier without the half of its weights that gives noise, not class: a wider margin, honestly."""

    def defend(self, classifier: nn.Module) -> nn.Module:
        assert isinstance(classifier, Linear)
        return Linear(torch.where(classifier.weight.abs() > 0.1, classifier.weight, 0.0))


def planted() -> tuple[Linear, torch.Tensor, torch.Tensor]:
    """Pictures of two classes, left or right half brighter by a varying amount, and a linear classifier that also
    reads noise."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    side = torch.ones(1, 8, 8)
    side[..., :4] = -1
    contrast = 0.05 + 0.2 * torch.rand(60, 1, 1, 1, generator=draws)
    noise = 0.02 * torch.randn(60, 3, 8, 8, generator=draws)
    images = (0.5 + (2 * labels - 1)[:, None, None, None] * contrast * side + noise).clamp(0, 1)
    weight = side.expand(3, 8, 8).flatten() * 0.15 + 0.02 * torch.randn(192, generator=draws).clamp(-2, 2)
    return Linear(weight), images, labels


def judged(defense: Defense) -> tuple[checks.Check, ...]:
    classifier, images, labels = planted()
    transferred = mr.attacks.create("pgd", float64_logits=True)(classifier, images, labels, epsilon=EPSILON)
    evidence = gather(
        defense.defend(classifier),
        defense.adaptive(classifier),
        images,
        labels,
        epsilon=EPSILON,
        transferred={"undefended": transferred},
        queries=200,
    )
    return check(evidence)


def test_an_honest_defense_passes() -> None:
    results = judged(Wider())
    assert not_shown(results) == ()
    assert defends(results)


def test_an_obfuscating_defense_is_refused() -> None:
    """Its white box gets nowhere; who crafts on the undefended model does."""
    results = judged(Quantised())
    assert {"transfer_is_no_stronger", "gradients_are_there", "loss_has_settled"} <= set(not_shown(results))
    assert not defends(results)


def test_the_same_quantiser_passes_its_gradient_check_once_the_attacker_knows() -> None:
    results = judged(mr.defenses.create("bit_depth", bits=2))
    assert "gradients_are_there" not in not_shown(results)


def test_too_few_steps_to_tell_are_refused() -> None:
    classifier, images, labels = planted()
    with pytest.raises(UserError, match="10 steps and 2 restarts"):
        gather(classifier, classifier, images, labels, epsilon=EPSILON, steps=5)
    with pytest.raises(UserError, match="20 images that the defended model names rightly, got 3 of 60"):
        gather(classifier, classifier, images, [*labels[:3], *(1 - labels[3:])], epsilon=EPSILON)
