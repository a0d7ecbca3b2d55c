"""Merges that depend on the order in which experts arrive, against a float64 transcription and what they promise."""

from __future__ import annotations

import pytest
import torch

from mergerisk import merging
from mergerisk.errors import UserError
from tests.merging.test_wrapped import assert_close, states
from tests.naive import wrapped as naive


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("order", [None, (3, 1, 0, 2), (2, 0)])
def test_opcm_is_the_transcription(alpha: float, order: tuple[int, ...] | None) -> None:
    base, experts = states(4)
    arrived = [experts[place] for place in order or range(4)]
    merged = merging.merge_state_dicts("opcm", base, experts, alpha=alpha, order=order)
    assert_close(merged, naive.opcm(base, arrived, alpha), rtol=1e-7)


def test_the_first_to_arrive_is_itself_and_who_has_not_arrived_counts_for_nothing() -> None:
    base, experts = states(3)
    first = merging.merge_state_dicts("opcm", base, experts, order=[1])
    assert all(torch.equal(first[name], experts[1][name]) for name in base)
    two = merging.merge_state_dicts("opcm", base, experts, order=[0, 2])
    alone = merging.merge_state_dicts("opcm", base, [experts[0], experts[2]])
    assert all(torch.equal(two[name], alone[name]) for name in base)


def test_the_order_decides_and_the_length_is_the_mean_one() -> None:
    base, experts = states(3)
    merged = [merging.merge_state_dicts("opcm", base, experts, order=order) for order in ([0, 1, 2], [2, 1, 0])]
    assert not torch.allclose(merged[0]["head.weight"], merged[1]["head.weight"])
    lengths = [
        sum(float((state[name] - base[name]).square().sum()) for name in base) ** 0.5
        for state in (*merged, *experts)
    ]
    assert lengths[0] == pytest.approx(lengths[1]) == pytest.approx(sum(lengths[2:]) / 3)


def test_a_new_expert_leaves_what_was_there_along_its_leading_directions() -> None:
    """At α = 1 the block of all of Δ's directions is lost: a copy of what is there already adds nothing to matrices."""
    base, (expert, *_) = states(1)
    merged = merging.merge_state_dicts("opcm", base, [expert, expert], alpha=1.0)
    ratios = {
        name: float((merged[name] - base[name]).norm() / (expert[name] - base[name]).norm()) for name in base
    }
    matrices = {ratio for name, ratio in ratios.items() if base[name].ndim == 2}
    others = {ratio for name, ratio in ratios.items() if base[name].ndim != 2}
    # Before everything is divided, vectors are twice as long as the expert's, and matrices as long.
    assert (
        min(others)
        == pytest.approx(max(others))
        == pytest.approx(2 * min(matrices))
        == pytest.approx(2 * max(matrices))
    )


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([0, 0], "each expert arrives once"),
        ([0, 3], "places of 3 experts are 0 to 2, got 3"),
        ([], "must not be empty"),
    ],
)
def test_an_order_that_cannot_be_is_said_in_a_line(order: list[int], said: str) -> None:
    base, experts = states(3)
    with pytest.raises(UserError, match=said):
        merging.merge_state_dicts("opcm", base, experts, order=order)
