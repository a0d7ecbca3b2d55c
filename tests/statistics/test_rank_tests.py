"""Rank tests against outside implementations, published examples, and brute force."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mergerisk.statistics import (
    benjamini_hochberg,
    complete_blocks,
    conover,
    critical_difference,
    friedman,
    holm,
    mcnemar,
    nemenyi,
    page,
    rank_picture,
    sign_test,
    signed_rank,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors" / "posthocs.json").read_text())

# Demšar (2006), table 6: AUC of four variants of C4.5 on 14 data sets. His ranks break the tie of the last two on
# "voting" (0.975), so the third is given a little more.
DEMSAR = np.array(
    [
        "0.763",
        "0.768",
        "0.771",
        "0.798",
        "0.599",
        "0.591",
        "0.590",
        "0.569",
        "0.954",
        "0.971",
        "0.968",
        "0.967",
        "0.628",
        "0.661",
        "0.654",
        "0.657",
        "0.882",
        "0.888",
        "0.886",
        "0.898",
        "0.936",
        "0.931",
        "0.916",
        "0.931",
        "0.661",
        "0.668",
        "0.609",
        "0.685",
        "0.583",
        "0.583",
        "0.563",
        "0.625",
        "0.775",
        "0.838",
        "0.866",
        "0.875",
        "1.000",
        "1.000",
        "1.000",
        "1.000",
        "0.940",
        "0.962",
        "0.965",
        "0.962",
        "0.619",
        "0.666",
        "0.614",
        "0.669",
        "0.972",
        "0.981",
        "0.9751",
        "0.975",
        "0.957",
        "0.978",
        "0.946",
        "0.970",
    ],
    dtype=float,
).reshape(14, 4)

# Hollander and Wolfe, breaking strength of cotton fibres at five levels of potash, in their order.
COTTON = np.array([[7.46, 7.17, 7.76, 8.14, 7.63], [7.68, 7.57, 7.73, 8.15, 8.00], [7.21, 7.80, 7.74, 7.87, 7.93]])

matrices = arrays(
    np.float64, st.tuples(st.integers(3, 6), st.integers(3, 5)), elements=st.integers(0, 6).map(float)
)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=["plain", "tied", "clear"])
def test_post_hoc_tests_equal_scikit_posthocs(case: dict[str, Any]) -> None:
    assert nemenyi(case["matrix"]) == pytest.approx(np.array(case["nemenyi"]), abs=1e-9)
    assert conover(case["matrix"]) == pytest.approx(np.array(case["conover"]), abs=1e-9)


def test_mcnemar_and_corrections_equal_statsmodels() -> None:
    b, c, expected = np.array(VECTORS["mcnemar"]).T
    assert mcnemar(b.astype(int), c.astype(int)) == pytest.approx(expected, abs=1e-12)
    assert holm(VECTORS["p_values"]) == pytest.approx(VECTORS["holm"])
    assert benjamini_hochberg(VECTORS["p_values"]) == pytest.approx(VECTORS["bh"])


def test_untested_claims_do_not_count_in_a_correction() -> None:
    for correct in (holm, benjamini_hochberg):
        found = correct([0.01, np.nan, 0.04])
        assert np.isnan(found[1])
        assert found[[0, 2]] == pytest.approx(correct([0.01, 0.04]))


def test_demsars_worked_example() -> None:
    found = friedman(DEMSAR)
    assert found.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    # He leaves ties uncorrected (9.28 and 3.69); the correction divides by what ties take from the ranks' spread.
    ranks_spread = 14 * 4 * 15 / 12
    tied = 5.0 + 0.5 + 0.5 + 0.5  # mushroom all four; iris, lung cancer and primary tumour two each
    assert found.statistic * (ranks_spread - tied) / ranks_spread == pytest.approx(9.28, abs=0.005)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, level=0.1) == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize(
    ("treatments", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)]
)
def test_critical_values_equal_demsars_table(treatments: int, q: float) -> None:
    blocks = 20
    expected = q * np.sqrt(treatments * (treatments + 1) / (6 * blocks))
    assert critical_difference(treatments, blocks) == pytest.approx(expected, rel=5e-4)


def test_hollander_and_wolfes_page_example() -> None:
    found = page(COTTON, np.arange(5))
    assert found.statistic == 158
    assert found.exact
    # Brute force: L of every way to order each of three blocks.
    products = np.array([np.dot(np.arange(1, 6), order) for order in itertools.permutations(range(1, 6))])
    one = np.bincount(products)
    three = np.convolve(np.convolve(one, one), one) / len(products) ** 3
    assert found.p_rising == pytest.approx(three[158:].sum())
    assert found.p_falling == pytest.approx(three[:159].sum())


def test_pages_moments_with_ties_and_orders_that_differ_equal_brute_force() -> None:
    matrix = np.array([[1.0, 1.0, 2.0, 5.0], [3.0, 0.0, 3.0, 3.0]])
    order = np.array([[1.0, 2.0, 2.0, 3.0], [4.0, 3.0, 1.0, 2.0]])
    found = page(matrix, order)
    from scipy.stats import norm, rankdata

    totals = []
    for one, two in itertools.product(
        itertools.permutations(rankdata(matrix[0])), itertools.permutations(rankdata(matrix[1]))
    ):
        totals.append(np.dot(one, rankdata(order[0])) + np.dot(two, rankdata(order[1])))
    z = (found.statistic - np.mean(totals)) / np.std(totals)
    assert not found.exact
    assert found.p_rising == pytest.approx(norm.sf(z))


def test_kendalls_w_is_its_definition() -> None:
    assert friedman(np.tile([1.0, 2.0, 3.0], (4, 1))).kendalls_w == pytest.approx(1)
    matrix = np.random.default_rng(3).normal(size=(6, 4))
    sums = np.argsort(np.argsort(-matrix, axis=1), axis=1).sum(axis=0) + 6
    by_hand = 12 * ((sums - sums.mean()) ** 2).sum() / (36 * (64 - 4))
    assert friedman(matrix).kendalls_w == pytest.approx(by_hand)


def test_rank_biserial_by_hand() -> None:
    found = signed_rank([3.0, -1.0, 2.0, 0.0, 4.0])  # ranks 3, 1, 2, 4: 9 up, 1 down
    assert (found.pairs, found.zeros, found.statistic) == (5, 1, 9)
    assert found.rank_biserial == pytest.approx(0.8)
    # Of 16 ways to set signs, those with W+ of at least 9 are two.
    assert found.p_greater == pytest.approx(2 / 16)
    assert found.p_value == pytest.approx(4 / 16)


def test_nothing_to_find_is_found() -> None:
    same = np.full((4, 3), 0.3)
    assert friedman(same).p_value == 1
    assert (nemenyi(same) == 1).all()
    assert (conover(same) == 1).all()
    assert page(same, [1, 2, 3]).p_value == 1
    assert signed_rank([0.0, 0.0]).p_value == 1
    assert sign_test([0, 0]).p_value == 1
    assert mcnemar(0, 0) == 1


def test_rounding_errors_break_no_ties() -> None:
    assert friedman([[0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2]]).p_value == 1
    assert signed_rank([0.1 + 0.2 - 0.3, 1.0]).zeros == 1


def test_a_missing_cell_is_refused_until_its_block_is_left_out() -> None:
    matrix = np.array([[1.0, 2.0], [np.nan, 1.0], [2.0, 3.0]])
    for test in (friedman, nemenyi, conover):
        with pytest.raises(ValueError, match="a cell is missing"):
            test(matrix)
    kept, rows = complete_blocks(matrix)
    assert rows.tolist() == [0, 2]
    assert friedman(kept).blocks == 2
    with pytest.raises(ValueError, match="finite"):
        signed_rank([np.nan, 1.0])


def test_cliques_are_maximal_and_within_the_critical_difference() -> None:
    # Fixed orders: mean ranks 1, 2, 3, 4 of 40 blocks; CD is 0.74, so nobody is together.
    clear = rank_picture(np.tile([4.0, 3.0, 2.0, 1.0], (40, 1)), ["a", "b", "c", "d"])
    assert clear.names == ("a", "b", "c", "d")
    assert clear.cliques == ()
    # Of 5 blocks it is 2.1: neighbours of up to two ranks are together.
    near = rank_picture(np.tile([4.0, 3.0, 2.0, 1.0], (5, 1)), ["a", "b", "c", "d"])
    assert near.cliques == (("a", "b", "c"), ("b", "c", "d"))


@settings(max_examples=30, deadline=None)
@given(matrices, st.randoms(use_true_random=False))
def test_relabelling_blocks_and_treatments_changes_nothing(matrix: np.ndarray, random: Any) -> None:
    rows, columns = list(range(matrix.shape[0])), list(range(matrix.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    moved = matrix[np.ix_(rows, columns)]
    assert friedman(moved).p_value == pytest.approx(friedman(matrix).p_value)
    assert friedman(moved).mean_ranks == pytest.approx(friedman(matrix).mean_ranks[columns])
    assert conover(moved) == pytest.approx(conover(matrix)[np.ix_(columns, columns)])
    order = np.arange(matrix.shape[1])
    assert page(moved, order[columns]).p_value == pytest.approx(page(matrix, order).p_value)


@settings(max_examples=30, deadline=None)
@given(matrices)
def test_the_complement_turns_tests_around(matrix: np.ndarray) -> None:
    k = matrix.shape[1]
    assert friedman(6 - matrix).mean_ranks == pytest.approx(k + 1 - friedman(matrix).mean_ranks)
    assert friedman(6 - matrix).p_value == pytest.approx(friedman(matrix).p_value)
    up, down = page(matrix, np.arange(k)), page(6 - matrix, np.arange(k))
    assert (up.p_rising, up.p_falling) == pytest.approx((down.p_falling, down.p_rising))
    d = matrix[:, 0] - matrix[:, 1]
    assert signed_rank(d).p_greater == pytest.approx(signed_rank(-d).p_less)
    assert signed_rank(d).rank_biserial == pytest.approx(-signed_rank(-d).rank_biserial)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_symmetric_and_mid_p_is_smaller(b: int, c: int) -> None:
    assert mcnemar(b, c) == mcnemar(c, b)
    assert mcnemar(b, c, mid_p=True) <= mcnemar(b, c)
