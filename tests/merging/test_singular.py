"""Decompositions through Gram matrices are as accurate as SVDs, and order statistics of streams are exact."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergerisk import merging
from mergerisk.merging import selection
from mergerisk.merging.selection import kth_largest
from mergerisk.merging.singular import gram, inverse_root, truncated_svd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def matrix(rows: int, columns: int, spectrum: Tensor, seed: int = 0) -> Tensor:
    """A matrix with these singular values."""
    draws = torch.Generator().manual_seed(seed)
    size = len(spectrum)
    left = torch.linalg.qr(torch.randn(rows, size, generator=draws, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, size, generator=draws, dtype=torch.float64)).Q
    return (left * spectrum) @ right.mT


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (48, 48)])
@pytest.mark.parametrize("decay", [1.0, 1e-2, 1e-3], ids=["flat", "hundredth", "thousandth"])
@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_the_best_approximation_of_a_rank_is_found(
    shape: tuple[int, int], decay: float, dtype: torch.dtype, accuracy: float
) -> None:
    spectrum = torch.logspace(0, math.log10(decay), 40, dtype=torch.float64) * torch.linspace(1, 0.9, 40)
    exact = matrix(*shape, spectrum)
    left, values, right = truncated_svd(exact.to(dtype), 8)
    torch.testing.assert_close(values, spectrum[:8], rtol=accuracy, atol=0)
    for vectors in (left, right):
        torch.testing.assert_close(
            vectors.mT @ vectors, torch.eye(8, dtype=torch.float64), rtol=0, atol=10 * accuracy
        )
    u, s, vh = torch.linalg.svd(exact, full_matrices=False)
    if decay < 1:  # equal singular values have no vectors of their own
        torch.testing.assert_close(
            (left * values) @ right.mT, (u[:, :8] * s[:8]) @ vh[:8], rtol=0, atol=10 * accuracy
        )


def test_a_matrix_of_lower_rank_gives_no_more_directions_than_it_has() -> None:
    spectrum = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        left, values, right = truncated_svd(matrix(20, 30, spectrum).to(dtype), 7)
        assert left.shape == (20, 3)
        assert right.shape == (30, 3)
        torch.testing.assert_close(values, spectrum, rtol=1e-6, atol=0)


def test_a_polar_factor_needs_no_svd() -> None:
    exact = matrix(50, 20, torch.logspace(0, -3, 20, dtype=torch.float64))
    root, values = inverse_root(gram(exact, torch.float64), torch.float64)
    u, s, vh = torch.linalg.svd(exact, full_matrices=False)
    torch.testing.assert_close(values, s, rtol=1e-9, atol=0)
    torch.testing.assert_close(exact @ root, u @ vh, rtol=0, atol=1e-9)


def test_tsv_m_in_float32_is_closer_to_the_truth_than_through_float32_svds() -> None:
    """The packed matrices of this case have a condition number of about a thousand."""
    draws = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(64, 96, generator=draws)}
    experts = [{"w": base["w"] + 0.1 * torch.randn(64, 96, generator=draws)} for _ in range(4)]
    vectors = [expert["w"] - base["w"] for expert in experts]

    def by_svd(dtype: torch.dtype) -> Tensor:
        triples = [torch.linalg.svd(vector.to(dtype), full_matrices=False) for vector in vectors]
        left = torch.cat([u[:, :16] for u, _, _ in triples], dim=1)
        values = torch.cat([s[:16] for _, s, _ in triples])
        right = torch.cat([vh[:16].mT for _, _, vh in triples], dim=1)
        factors = [u @ vh for u, _, vh in (torch.linalg.svd(x, full_matrices=False) for x in (left, right))]
        return ((factors[0] * values) @ factors[1].mT).double()

    truth = by_svd(torch.float64)
    merged = merging.merge_state_dicts("tsv_m", {"w": torch.zeros(64, 96)}, [{"w": v} for v in vectors])["w"]
    ours = float((merged - truth).abs().max() / truth.abs().max())
    theirs = float((by_svd(torch.float32) - truth).abs().max() / truth.abs().max())
    assert ours < 1e-5
    assert ours < theirs


def stream(values: Tensor, size: int) -> object:
    def pieces(stride: int) -> Iterator[Tensor]:
        yield from values[::stride].split(size)

    return pieces


@given(
    values=st.lists(st.integers(-20, 20), min_size=1, max_size=300),
    share=st.floats(0, 1),
    size=st.integers(1, 50),
    sample=st.integers(1, 40),
    collected=st.integers(2, 60),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_order_statistics_of_streams_equal_those_of_sorting(
    values: list[int], share: float, size: int, sample: int, collected: int
) -> None:
    """With many ties, samples too small to be trusted, and less room than the bracket needs."""
    tensor = torch.tensor(values, dtype=torch.float32)
    k = min(len(values), 1 + int(share * len(values)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_SAMPLE", sample)
        patch.setattr(selection, "_COLLECTED", collected)
        found = kth_largest(stream(tensor, size), len(values), k)
    assert found == sorted(values, reverse=True)[k - 1]


def test_a_sample_that_misleads_does_not_change_the_answer() -> None:
    """Every stride-th value is 0; all others are large."""
    values = torch.arange(1.0, 5001.0)
    values[::7] = 0.0

    def pieces(stride: int) -> Iterator[Tensor]:
        yield from (values if stride == 1 else values[::7]).split(1000)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_SAMPLE", 700)
        for k in (1, 2, 1000, 4000, 5000):
            assert kth_largest(pieces, 5000, k) == float(values.sort(descending=True).values[k - 1])
