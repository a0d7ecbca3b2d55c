"""Diagnostics in feature space against plain NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from mergerisk import attacks, causes
from mergerisk.causes.cka import Moments
from mergerisk.errors import UserError
from tests.causes.models import PIXELS, classifier, draws, encoder, pictures, small

if TYPE_CHECKING:
    from mergerisk.models import Encoder

IMAGES = pictures(9)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
Array = np.ndarray[Any, Any]


def by_block(model: Encoder, images: Tensor) -> list[Array]:
    """What each layer puts out, bent or not, then the features."""
    hidden, found = images.flatten(1), []
    for layer in model.backbone.layers:
        found.append((hidden @ layer.weight.mT).numpy())
        hidden = torch.tanh(hidden @ layer.weight.mT) if model.backbone.bend else hidden @ layer.weight.mT
    return [*found, hidden.numpy()]


NAMES = ["block_0", "block_1", "block_2", "features"]


# --- representation bias ---------------------------------------------------------------------------------


def test_bias_is_the_mean_absolute_distance_of_features() -> None:
    s, t = small(1), small(2)
    found = causes.create("representation_bias")(s, t, IMAGES, batch_size=4)
    ones, others = by_block(s.encoder, IMAGES), by_block(t.encoder, IMAGES)
    for name, one, other in zip(NAMES, ones, others, strict=True):
        column = "representation_bias" if name == "features" else f"representation_bias_{name}"
        np.testing.assert_allclose(found[column].values, np.abs(one - other).mean(axis=1), rtol=1e-12)
    same = causes.create("representation_bias")(s, s, IMAGES)
    assert all((column.values == 0).all() for column in same.values())


def test_bias_is_behind_the_adapter() -> None:
    s, t = small(1), small(1)
    t.adapter = torch.nn.Linear(6, 6, dtype=torch.float64)
    torch.nn.init.zeros_(t.adapter.weight)
    torch.nn.init.zeros_(t.adapter.bias)
    found = causes.create("representation_bias", blocks=False)(s, t, IMAGES)
    features = by_block(s.encoder, IMAGES)[-1]
    np.testing.assert_allclose(found["representation_bias"].values, np.abs(features).mean(axis=1), rtol=1e-12)


# --- CKA -------------------------------------------------------------------------------------------------


def hsic(k: Array, l: Array) -> float:  # noqa: E741
    """Song et al. 2012, equation 4, with kernel matrices."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    total = np.trace(k @ l) + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l).sum() / (n - 2)
    return float(total / (n * (n - 3)))


def naive_cka(x: Array, y: Array) -> float:
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_cka_with_kernel_matrices(batch_size: int) -> None:
    s, t = small(1), small(2, base=1)
    found = causes.create("cka")(s, t, IMAGES, batch_size=batch_size)
    assert found.rows == tuple(NAMES)
    for row, (x, y) in enumerate(zip(by_block(s.encoder, IMAGES), by_block(t.encoder, IMAGES), strict=True)):
        np.testing.assert_allclose(found["cka"].values[row], naive_cka(x, y), rtol=1e-9)
        x0, y0 = ((z - z.mean(axis=0)) / np.linalg.norm(z - z.mean(axis=0)) for z in (x, y))
        turned = x0 @ orthogonal_procrustes(x0, y0)[0]
        np.testing.assert_allclose(found["procrustes"].values[row], ((turned - y0) ** 2).sum(), rtol=1e-9)
        cosine = (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        np.testing.assert_allclose(found["mean_cosine"].values[row], cosine.mean(), rtol=1e-10)


def test_rotation_scale_and_shift_change_no_geometry() -> None:
    x, turn = draws(1, 30, 5), torch.linalg.qr(draws(2, 5, 5))[0]
    moments = Moments()
    for rows in (slice(0, 7), slice(7, 30)):
        moments.add(x[rows] + 50, 3 * x[rows] @ turn + 1)
    assert moments.cka == pytest.approx(1, abs=1e-10)
    assert moments.procrustes == pytest.approx(0, abs=1e-10)


def test_unrelated_features_are_unlike_even_if_they_outnumber_the_images() -> None:
    """The plain estimate would be near 1."""
    x, y = (draws(seed, 40, 400).numpy() for seed in (1, 2))
    moments = Moments()
    moments.add(torch.from_numpy(x), torch.from_numpy(y))
    centred = [z - z.mean(axis=0) for z in (x, y)]
    k, l = (z @ z.T for z in centred)  # noqa: E741
    assert (k * l).sum() / np.linalg.norm(k) / np.linalg.norm(l) > 0.85
    assert abs(moments.cka) < 0.1


def test_widths_may_differ_for_cka() -> None:
    one = encoder([draws(1, 4, PIXELS)])
    other = encoder([draws(2, 7, PIXELS)])
    found = causes.create("cka")(one, other, IMAGES)
    x, y = by_block(one, IMAGES)[0], by_block(other, IMAGES)[0]
    np.testing.assert_allclose(found["cka"].values, naive_cka(x, y), rtol=1e-9)
    assert found["mean_cosine"].counts == {"the features have different widths": 2}


def test_geometry_of_nothing_is_missing() -> None:
    one, flat = encoder([draws(1, 4, PIXELS)]), encoder([torch.zeros(4, PIXELS, dtype=torch.float64)])
    found = causes.create("cka")(one, flat, IMAGES)
    for name in ("cka", "procrustes"):
        assert found[name].counts == {"the features are the same for all images": 2}
    assert found["mean_cosine"].counts == {"no image has features of some length": 2}
    assert found["undefined_cosines"].values.tolist() == [9, 9]
    first = torch.zeros_like(IMAGES)
    first[0] = 1
    lone = causes.create("cka")(one, one, first)
    assert lone["cka"].counts == {"the features of single images differ, and no others": 2}
    few = causes.create("cka")(one, one, IMAGES[:3])
    assert few["cka"].counts == {"fewer than 4 images": 2}


# --- shifts ----------------------------------------------------------------------------------------------


def test_shift_of_linear_features() -> None:
    s_map, t_map = draws(1, 4, PIXELS), draws(2, 4, PIXELS)
    s, t = classifier([s_map], draws(3, 3, 4)), classifier([t_map], draws(3, 3, 4))
    found = causes.create("feature_shift", attack="fgsm")(s, t, IMAGES, LABELS, epsilon=0.1)
    delta = (attacks.create("fgsm")(s, IMAGES, LABELS, epsilon=0.1) - IMAGES).flatten(1).numpy()
    x = IMAGES.flatten(1).numpy()
    shifts = {"surrogate": delta @ s_map.numpy().T, "target": delta @ t_map.numpy().T}
    clean = {"surrogate": x @ s_map.numpy().T, "target": x @ t_map.numpy().T}
    shares = {k: np.linalg.norm(shifts[k], axis=1) / np.linalg.norm(clean[k], axis=1) for k in clean}
    np.testing.assert_allclose(found["feature_shift"].values, shares["target"], rtol=1e-9)
    np.testing.assert_allclose(found["feature_shift_surrogate"].values, shares["surrogate"], rtol=1e-9)
    a, b = shifts.values()
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found["feature_shift_cosine"].values, cosine, rtol=1e-9)


def test_shifts_that_are_not_defined() -> None:
    s = classifier([draws(1, 4, PIXELS)], draws(3, 3, 4))
    wide = classifier([draws(2, 5, PIXELS)], draws(3, 3, 5))
    dead = classifier([torch.zeros(4, PIXELS, dtype=torch.float64)], draws(3, 3, 4))
    create = causes.create("feature_shift", attack="fgsm")
    assert create(s, wide, IMAGES, LABELS)["feature_shift_cosine"].counts == {
        "the features have different widths": 9
    }
    found = create(s, dead, IMAGES, LABELS)
    assert found["feature_shift"].counts == {"the target's clean features have length zero": 9}
    assert found["feature_shift_cosine"].counts == {"the target's features do not move": 9}


# --- linearity -------------------------------------------------------------------------------------------


def test_a_model_linear_in_its_weights_is_linear() -> None:
    base, one, other = (draws(seed, 4, PIXELS) for seed in (1, 2, 3))
    merge = base + 0.3 * (one - base) + 0.5 * (other - base)
    found = causes.create("linearity")(
        None,
        encoder([merge]),
        IMAGES,
        base=encoder([base]),
        experts={"a": encoder([one]), "b": encoder([other])},
        coefficients={"b": 0.5, "a": 0.3},
    )
    for column in found.values():
        np.testing.assert_allclose(column.values, 1, rtol=1e-12)


def test_a_bent_merge_is_compared_with_the_mix_of_features() -> None:
    base, one, other, merge = small(1), small(2, base=1), small(3, base=1), small(4, base=1)
    found = causes.create("linearity")(
        None,
        merge,
        IMAGES,
        base=base,
        experts={"a": one, "b": other},
        coefficients={"a": 0.3, "b": 0.5},
        batch_size=2,
    )
    parts = [by_block(model.encoder, IMAGES) for model in (base, one, other, merge)]
    for name, b, f, g, m in zip(NAMES, *parts, strict=True):
        mix = b + 0.3 * (f - b) + 0.5 * (g - b)
        suffix = "" if name == "features" else f"_{name}"
        lengths = [np.linalg.norm(z, axis=1) for z in (m, mix)]
        cosine = (m * mix).sum(axis=1) / lengths[0] / lengths[1]
        np.testing.assert_allclose(found[f"linearity{suffix}"].values, cosine, rtol=1e-10)
        np.testing.assert_allclose(found[f"linearity_ratio{suffix}"].values, lengths[0] / lengths[1], rtol=1e-10)


def test_coefficients_name_every_expert() -> None:
    with pytest.raises(UserError, match="linearity: coefficients must name each expert once: a; they name b"):
        causes.create("linearity")(
            None, small(1), IMAGES, base=small(2), experts={"a": small(3)}, coefficients={"b": 1.0}
        )
