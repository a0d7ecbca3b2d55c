"""Merges with hidden numbers: where they lie, what they answer together, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch

import mergerisk as mr
from mergerisk.defenses import one_for_each, together
from mergerisk.errors import UserError
from mergerisk.models import Classifier, Head
from tests.tiny import tiny_encoder

EXPERTS = {"one": tiny_encoder(1), "two": tiny_encoder(2)}


def test_a_hidden_merge_lies_on_the_line_through_base_and_merge() -> None:
    base, method = tiny_encoder(), mr.merging.create("task_arithmetic", scaling=0.4)
    defense = mr.defenses.create("ensemble_of_merges", members=5, low=0.5, high=1.5, seed=3)
    drawn = defense.drawn()
    assert len({one.at for one in drawn}) == 5
    assert all(0.5 <= one.at <= 1.5 for one in drawn)
    start = base.state()["first.weight"].double()
    for one, encoder in zip(drawn, defense.merge(method, base, EXPERTS), strict=True):
        sum_of_tasks = sum(expert.state()["first.weight"].double() - start for expert in EXPERTS.values())
        expected = start + one.at * 0.4 * sum_of_tasks
        # A handful of roundings of numbers of size 1 in float32.
        torch.testing.assert_close(encoder.state()["first.weight"].double(), expected, rtol=0, atol=1e-6)
        assert int(encoder.state()["counter"]) == 7


def test_another_secret_is_another_merge_and_dare_draws_anew() -> None:
    base, method = tiny_encoder(), mr.merging.create("dare", drop_rate=0.5)
    defense = mr.defenses.create("ensemble_of_merges", members=2, low=1.0, high=1.0)
    first, second = (encoder.state()["first.weight"] for encoder in defense.merge(method, base, EXPERTS))
    assert not torch.equal(first, second)
    again = defense.merge(method, base, EXPERTS)[0].state()["first.weight"]
    assert torch.equal(first, again)
    guess = defense.guessed("attacker").merge(method, base, EXPERTS)[0].state()["first.weight"]
    assert not torch.equal(first, guess)


def test_they_answer_by_their_mean_probabilities() -> None:
    draws = torch.Generator().manual_seed(0)
    head, images = (
        Head(torch.randn(4, 6, generator=draws), torch.zeros(4)),
        torch.rand(5, 3, 4, 4, generator=draws),
    )
    encoders = [*EXPERTS.values()]
    said = together(encoders, head)(images).softmax(dim=1)
    mean = sum(Classifier(encoder, head)(images).softmax(dim=1) for encoder in encoders) / 2
    torch.testing.assert_close(said, mean, rtol=1e-5, atol=1e-6)


def test_each_picture_is_answered_by_one_of_them_whatever_comes_with_it() -> None:
    """Which one, depends on the secret and on what the picture shows, in bytes."""
    draws = torch.Generator().manual_seed(0)
    head = Head(torch.randn(4, 6, generator=draws), torch.zeros(4))
    encoders = [tiny_encoder(seed) for seed in range(1, 4)]
    images = torch.rand(60, 3, 4, 4, generator=draws)
    own = torch.stack([Classifier(encoder, head)(images) for encoder in encoders])
    model = one_for_each(encoders, head, 7)
    said = model(images)
    apart = (own - said).abs().amax(dim=2)
    chosen = apart.argmin(dim=0)
    # A sum of six products in float32, in batches of other sizes.
    assert float(apart.min(dim=0).values.max()) < 1e-5
    assert sorted(chosen.bincount(minlength=3).tolist())[0] > 8  # 20 each, give or take 3.7
    alone = torch.cat([model(image[None]) for image in images.flip(0)]).flip(0)
    torch.testing.assert_close(alone, said, rtol=0, atol=1e-5)
    other = (own - one_for_each(encoders, head, 8)(images)).abs().amax(dim=2).argmin(dim=0)
    assert not torch.equal(other, chosen)
    moved = ((images * 255).round() + 1).clamp(max=255) / 255
    there = torch.stack([Classifier(encoder, head)(moved) for encoder in encoders])
    assert not torch.equal((there - model(moved)).abs().amax(dim=2).argmin(dim=0), chosen)
    assert model(images[:0]).shape == (0, 4)


def test_a_merge_per_picture_has_the_merges_of_an_ensemble() -> None:
    base, method = tiny_encoder(), mr.merging.create("task_arithmetic", scaling=0.4)
    pair = [
        mr.defenses.create(name, members=3, seed=2).merge(method, base, EXPERTS)  # type: ignore[call-overload]
        for name in ("lambda_per_query", "ensemble_of_merges")
    ]
    for one, other in zip(*pair, strict=True):
        assert torch.equal(one.state()["first.weight"], other.state()["first.weight"])


def test_what_cannot_be_hidden_is_said() -> None:
    with pytest.raises(UserError, match="Secrecy takes merges into one encoder of the base's architecture"):
        mr.defenses.create("secrecy").merge(mr.merging.create("emr"), tiny_encoder(), EXPERTS)
    with pytest.raises(UserError, match=re.escape("low: must be at most high, 0.5, got 0.7")):
        mr.defenses.create("secrecy", high=0.5)
