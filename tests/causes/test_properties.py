"""What no diagnostic may depend on: batches, the order of images, the scale of logits, other images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergerisk import causes
from mergerisk.causes import CAUSES
from mergerisk.models import Classifier, Head
from tests.causes.models import PIXELS, Linear, draws, pictures, small

if TYPE_CHECKING:
    from mergerisk.causes import Measured

NAMES = [entry.name for entry in CAUSES.entries() if entry.target.startswith("mergerisk.")]
PER_IMAGE = [name for name in NAMES if CAUSES.load(name).per == "image"]
SETTINGS = settings(max_examples=6, deadline=None, derandomize=True)
CHEAP: dict[str, dict[str, Any]] = {
    "agreement": {"steps": 2},
    "feature_shift": {"steps": 2},
    "diversity": {"steps": 2},
    "smoothness": {"products": 4},
    "loss_barrier": {"points": 3, "steps": 2},
}


def pair(seed: int) -> tuple[Classifier, Classifier, dict[str, Any]]:
    base, s, t = small(seed), small(seed + 1, base=seed), small(seed + 2, base=seed)
    return s, t, {"base": base, "experts": {"a": s, "b": t}, "coefficients": {"a": 0.4, "b": 0.4}}


def same(one: Measured, other: Measured, rtol: float = 1e-7) -> None:
    assert one.rows == other.rows
    for name, column in one.items():
        np.testing.assert_allclose(column.values, other[name].values, rtol=rtol, atol=1e-9, err_msg=name)
        assert column.reasons == other[name].reasons


@pytest.mark.parametrize("name", NAMES)
@given(count=st.integers(5, 9), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 99))
@SETTINGS
def test_batches_change_nothing(name: str, count: int, sizes: tuple[int, int], seed: int) -> None:
    s, t, merge = pair(seed)
    images, labels = pictures(count, seed), torch.arange(count) % 3
    cause = causes.create(name, **CHEAP.get(name, {}))
    one, other = (cause(s, t, images, labels, seed=seed, batch_size=size, epsilon=0.1, **merge) for size in sizes)
    same(one, other)


@pytest.mark.parametrize("name", PER_IMAGE)
@given(order=st.permutations(range(6)), seed=st.integers(0, 99))
@SETTINGS
def test_an_image_has_its_value_wherever_it_stands(name: str, order: list[int], seed: int) -> None:
    s, t, merge = pair(seed)
    images, labels = pictures(6, seed), torch.arange(6) % 3
    cause = causes.create(name, **CHEAP.get(name, {}))
    plain = cause(s, t, images, labels, seed=seed, epsilon=0.1, **merge)
    moved = cause(s, t, images[order], labels[order], seed=seed, indices=order, epsilon=0.1, **merge)
    assert moved.rows == tuple(order)
    for column, values in plain.items():
        np.testing.assert_allclose(moved[column].values, values.values[order], rtol=1e-7, atol=1e-9)


@given(scale=st.floats(0.01, 1000), seed=st.integers(0, 99))
@SETTINGS
def test_the_scale_of_logits_does_not_matter_where_it_must_not(scale: float, seed: int) -> None:
    weights = draws(seed, 3, PIXELS), draws(seed + 1, 3, PIXELS)
    images = pictures(5, seed)
    s, t, scaled = Linear(weights[0]), Linear(weights[1]), Linear(scale * weights[1])
    labels = t(images).argmax(dim=1)
    for name, parameters in {
        "gradient_alignment": {"loss": "margin"},
        "boundary_distance": {},
        "agreement": {"steps": 2},
    }.items():
        cause = causes.create(name, **parameters)
        same(cause(s, t, images, labels), cause(s, scaled, images, labels))
    sizes = [
        causes.create("gradient_size", loss="margin")(s, model, images, labels)["gradient_size_l1"].values
        for model in (t, scaled)
    ]
    np.testing.assert_allclose(sizes[1], scale * sizes[0], rtol=1e-9)


@given(seed=st.integers(0, 999))
@SETTINGS
def test_equal_models_are_equal_to_every_diagnostic(seed: int) -> None:
    model, images = small(seed), pictures(6, seed)
    labels = model(images).argmax(dim=1)

    def of(name: str, column: str | None = None, **parameters: Any) -> np.ndarray[Any, Any]:
        return causes.create(name, **parameters)(model, model, images, labels, base=small(5000))[
            column or name
        ].present

    for ones in (
        of("gradient_alignment"),
        of("gradient_alignment", "first_order_gain"),
        of("gradient_size", "gradient_ratio_l2"),
        of("agreement"),
        of("cka"),
        of("feature_shift", "feature_shift_cosine"),
        of("weight_distance", "weight_cosine"),
        of("subspace_alignment", kept=1.0),
    ):
        assert len(ones)
        np.testing.assert_allclose(ones, 1, rtol=1e-9)
    for zeros in (of("representation_bias"), of("cka", "procrustes"), of("boundary_distance", "boundary_gap")):
        np.testing.assert_allclose(zeros, 0, atol=1e-9)


@given(seed=st.integers(0, 999))
@SETTINGS
def test_flipping_the_target_flips_the_alignment(seed: int) -> None:
    s, t = small(seed), small(seed + 1)
    flipped = Classifier(t.encoder, Head(-t.head.weight, -t.head.bias))
    images, labels = pictures(4, seed), torch.arange(4) % 3
    there, back = (
        causes.create("gradient_alignment", loss="logit")(s, model, images, labels)["gradient_alignment"].values
        for model in (t, flipped)
    )
    np.testing.assert_allclose(there, -back, rtol=1e-9)
