"""Diagnostics in pixel space against closed forms of linear and quadratic models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mergerisk import attacks, causes
from mergerisk.causes.curvature import largest_eigenvalues
from mergerisk.causes.gradients import ZERO_SURROGATE, ZERO_TARGET
from mergerisk.models import Classifier, Head, load_encoder
from tests.causes.models import PIXELS, SIZE, Linear, Quadratic, draws, encoder, pictures, small

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = pictures(5)
LABELS = torch.tensor([0, 1, 2, 0, 1])


def ce_gradients(weight: Tensor, images: Tensor, labels: Tensor) -> np.ndarray[Any, Any]:
    """(softmax(W x) − onehot) W, by NumPy."""
    w, x = weight.numpy(), images.flatten(1).numpy()
    z = x @ w.T
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(x)), labels.numpy()] -= 1
    return p @ w


# --- gradients -------------------------------------------------------------------------------------------


def test_alignment_and_size_of_linear_models() -> None:
    weights = [draws(1, 3, PIXELS), draws(2, 3, PIXELS)]
    s, t = (ce_gradients(weight, IMAGES, LABELS) for weight in weights)
    models = [Linear(weight) for weight in weights]
    found = causes.create("gradient_alignment")(*models, IMAGES, LABELS)
    cosine = (s * t).sum(1) / np.sqrt((s * s).sum(1) * (t * t).sum(1))
    np.testing.assert_allclose(found["gradient_alignment"].values, cosine, rtol=1e-12)
    gain = (np.sign(s) * t).sum(1) / np.abs(t).sum(1)
    np.testing.assert_allclose(found["first_order_gain"].values, gain, rtol=1e-12)
    sizes = causes.create("gradient_size")(*models, IMAGES, LABELS)
    l1, l2 = (lambda g: np.abs(g).sum(1)), (lambda g: np.sqrt((g * g).sum(1)))
    for name, length in {"l1": l1, "l2": l2}.items():
        np.testing.assert_allclose(sizes[f"gradient_size_{name}"].values, length(t), rtol=1e-12)
        np.testing.assert_allclose(sizes[f"gradient_ratio_{name}"].values, length(t) / length(s), rtol=1e-12)


def test_the_first_order_gain_is_what_a_small_step_gains() -> None:
    """A step of ε on the surrogate, over the target's own, on a margin that is linear."""
    s, t = Linear(draws(1, 2, PIXELS)), Linear(draws(2, 2, PIXELS))
    labels = torch.zeros(5, dtype=torch.int64)
    inner = 0.3 + 0.4 * IMAGES

    def gap(images: Tensor) -> Tensor:
        logits = t(images)
        return logits[:, 1] - logits[:, 0]

    attack = attacks.create("fgsm", loss="margin")
    moved, best = (attack(model, inner, labels, epsilon=0.1) for model in (s, t))
    gained = (gap(moved) - gap(inner)) / (gap(best) - gap(inner))
    found = causes.create("gradient_alignment", loss="margin")(s, t, inner, labels)
    np.testing.assert_allclose(found["first_order_gain"].values, gained.numpy(), rtol=1e-9)


@pytest.mark.parametrize(("other", "expected"), [("same", 1.0), ("flipped", -1.0), ("orthogonal", 0.0)])
def test_extreme_pairs(other: str, expected: float) -> None:
    weight = torch.zeros(2, PIXELS, dtype=torch.float64)
    weight[0, :6], weight[1, 6:] = 1.0, -2.0
    orthogonal = weight.clone()
    orthogonal[:, 1::2] *= -1
    pair = {"same": weight, "flipped": -weight, "orthogonal": orthogonal}[other]
    labels = torch.tensor([0, 1, 0, 1, 0])
    found = causes.create("gradient_alignment")(Linear(weight), Linear(pair), IMAGES, labels)
    for column in found.values():
        np.testing.assert_allclose(column.values, expected, atol=1e-15)


def test_zero_gradients_are_missing_and_counted() -> None:
    weight = draws(1, 3, PIXELS)
    nothing = Linear(torch.zeros(3, PIXELS, dtype=torch.float64))
    dead = causes.create("gradient_alignment")(nothing, Linear(weight), IMAGES, LABELS)
    assert dead["gradient_alignment"].counts == {ZERO_SURROGATE: 5}
    assert dead["gradient_alignment"].mean is None
    assert np.isnan(dead["first_order_gain"].values).all()
    other = causes.create("gradient_alignment")(Linear(weight), nothing, IMAGES, LABELS)
    assert other["first_order_gain"].counts == {ZERO_TARGET: 5}
    sizes = causes.create("gradient_size")(nothing, Linear(weight), IMAGES, LABELS)
    assert sizes["gradient_ratio_l2"].counts == {ZERO_SURROGATE: 5}
    assert sizes["gradient_size_l2"].counts == {}
    zero = causes.create("gradient_size")(Linear(weight), nothing, IMAGES, LABELS)
    assert (zero["gradient_ratio_l1"].values == 0).all(), "a size of zero is a size"


def test_a_saturated_float32_softmax_has_an_alignment() -> None:
    """Gaps of 60: softmax in float32 is exactly one-hot, and its gradient zero."""
    weight = torch.zeros(2, PIXELS)
    weight[0] = 60.0 / PIXELS
    images = torch.ones(2, *SIZE)
    labels = torch.zeros(2, dtype=torch.int64)
    model = Linear(weight)
    leaf = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(leaf), labels, reduction="sum")
    assert not torch.autograd.grad(loss, leaf)[0].any()
    found = causes.create("gradient_alignment")(model, model, images, labels)
    np.testing.assert_allclose(found["gradient_alignment"].values, 1.0, rtol=1e-6)


# --- smoothness ------------------------------------------------------------------------------------------


def symmetric(seed: int, largest: float) -> Tensor:
    """A matrix with eigenvalues in [−1, 1], but for one."""
    basis = torch.linalg.qr(draws(seed, PIXELS, PIXELS))[0]
    values = torch.linspace(-1, 1, PIXELS, dtype=torch.float64)
    values[3] = largest
    return basis @ torch.diag(values) @ basis.mT


@pytest.mark.parametrize("largest", [2.5, -2.5])
def test_curvature_of_a_quadratic_loss_is_its_largest_eigenvalue_with_its_sign(largest: float) -> None:
    models = [Quadratic(torch.stack([symmetric(k, largest * k) for k in (1, 2, 3)])), Linear(draws(1, 3, PIXELS))]
    found = causes.create("smoothness", loss="logit", products=PIXELS)(*models, IMAGES, LABELS, epsilon=0.1)
    np.testing.assert_allclose(found["curvature_surrogate"].values, largest * (LABELS.numpy() + 1), rtol=1e-10)
    np.testing.assert_array_equal(found["curvature_target"].values, 0.0)
    np.testing.assert_array_equal(found["gradient_change_target"].values, 0.0)
    change = found["gradient_change_surrogate"].values
    assert ((change > 0) & (change < abs(largest) * 3)).all()
    few = causes.create("smoothness", loss="logit", products=4)(*models, IMAGES, LABELS)
    assert (np.abs(few["curvature_surrogate"].values) <= np.abs(largest * (LABELS.numpy() + 1)) + 1e-12).all()


def test_curvature_of_cross_entropy_on_a_linear_model() -> None:
    """The Hessian is Wᵀ (diag p − p pᵀ) W."""
    weight = draws(4, 3, PIXELS)
    model = Linear(weight)
    found = causes.create("smoothness")(model, model, IMAGES, LABELS)
    for image, curvature in zip(IMAGES, found["curvature_target"].values, strict=True):
        p = np.exp(weight.numpy() @ image.flatten().numpy())
        p /= p.sum()
        hessian = weight.numpy().T @ (np.diag(p) - np.outer(p, p)) @ weight.numpy()
        np.testing.assert_allclose(curvature, np.linalg.eigvalsh(hessian)[-1], rtol=1e-9)


def test_a_step_changes_a_quadratic_gradient_by_its_matrix() -> None:
    """‖A u‖ / ‖u‖ of A = 2 I is 2, whatever u."""
    forms = 2.0 * torch.eye(PIXELS, dtype=torch.float64).expand(3, PIXELS, PIXELS)
    found = causes.create("smoothness", loss="logit")(*[Quadratic(forms)] * 2, IMAGES, LABELS)
    np.testing.assert_allclose(found["gradient_change_surrogate"].values, 2.0, rtol=1e-10)
    np.testing.assert_allclose(found["curvature_surrogate"].values, 2.0, rtol=1e-12)


def test_no_more_products_are_taken_than_asked_for() -> None:
    taken = []
    matrix = symmetric(1, 3.0)

    def product(vectors: Tensor) -> Tensor:
        taken.append(len(vectors))
        return (vectors.flatten(1) @ matrix).view(vectors.shape)

    largest_eigenvalues(product, draws(0, 2, *SIZE), 8)
    assert taken == [2] * 8
    found = largest_eigenvalues(product, draws(0, 2, *SIZE), 99)
    assert len(taken) == 8 + PIXELS
    np.testing.assert_allclose(found.numpy(), 3.0, rtol=1e-12)


# --- boundaries ------------------------------------------------------------------------------------------


def right_labels(model: torch.nn.Module) -> Tensor:
    found: Tensor = model(IMAGES).argmax(dim=1)
    return found


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_distance_to_the_boundaries_of_a_linear_model(norm: Any, dual: int) -> None:
    weight, bias = draws(3, 4, PIXELS), draws(5, 4)
    model, surrogate = Linear(weight, bias), Linear(draws(6, 4, PIXELS))
    labels = right_labels(model)
    found = causes.create("boundary_distance")(surrogate, model, IMAGES, labels, norm=norm)
    z, w = model(IMAGES).numpy(), weight.numpy()
    for row, y in enumerate(labels.tolist()):
        ways = [(z[row, y] - z[row, i]) / np.linalg.norm(w[y] - w[i], ord=dual) for i in range(4) if i != y]
        np.testing.assert_allclose(found["boundary_distance"].values[row], min(ways), rtol=1e-12)


def test_along_the_surrogates_step_a_linear_model_errs_where_its_logits_cross() -> None:
    s, t = Linear(draws(6, 2, PIXELS)), Linear(draws(3, 2, PIXELS))
    labels = right_labels(t)
    cause = causes.create("boundary_distance", reach=4.0, points=8, halvings=20)
    found = cause(s, t, IMAGES, labels)
    step = np.sign(ce_gradients(s.weight, IMAGES, labels))
    rows = np.arange(5)
    own, other = labels.numpy(), 1 - labels.numpy()
    resolution = 4.0 / 8 / 2**20
    for name, model in {"surrogate": s, "target": t}.items():
        z, w = model(IMAGES).numpy(), model.weight.numpy()
        gap = z[rows, own] - z[rows, other]
        falls = ((w[other] - w[own]) * step).sum(axis=1)
        expected = np.where((gap > 0) & (falls > 0) & (gap < 4.0 * falls), gap / falls, np.nan)
        got = found[f"boundary_along_{name}"].values
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        np.testing.assert_allclose(got, expected, atol=resolution)
    gap_values = found["boundary_gap"].values
    difference = found["boundary_along_target"].values - found["boundary_along_surrogate"].values
    np.testing.assert_array_equal(gap_values, difference)


def test_where_there_is_no_distance_the_reason_is_said() -> None:
    model = Linear(draws(3, 2, PIXELS))
    right = right_labels(model)
    wrong = causes.create("boundary_distance")(model, model, IMAGES, 1 - right)
    assert wrong["boundary_distance"].counts == {"the target errs on the clean image": 5}
    near = causes.create("boundary_distance", reach=1e-9)(model, model, IMAGES, right)
    assert near["boundary_along_target"].counts == {"no boundary within reach": 5}
    constant = Linear(torch.zeros(2, PIXELS, dtype=torch.float64), torch.tensor([1.0, 0.0]).double())
    still = causes.create("boundary_distance")(constant, constant, IMAGES, torch.zeros(5, dtype=torch.int64))
    assert still["boundary_distance"].counts == {"the target's logits do not move": 5}
    assert still["boundary_along_target"].counts == {ZERO_SURROGATE: 5}


def test_only_the_nearest_classes_are_tried() -> None:
    """The second class has the larger logit; the third is nearer."""
    weight = torch.zeros(3, PIXELS, dtype=torch.float64)
    weight[1], weight[2] = 0.01, 1.0
    model = Linear(weight, torch.tensor([20.0, 18.0, 0.0]).double())
    labels = torch.zeros(5, dtype=torch.int64)
    one, all_of_them = (
        causes.create("boundary_distance", classes=n)(model, model, IMAGES, labels)["boundary_distance"].values
        for n in (1, 2)
    )
    assert (one > all_of_them).all()


# --- agreement and diversity -----------------------------------------------------------------------------


def test_agreement_counts_what_a_plain_loop_counts() -> None:
    images = pictures(60, seed=3)
    s, t = small(1), small(2, base=1)
    labels = s(images).argmax(dim=1)
    labels[::5] = (labels[::5] + 1) % 3
    found = causes.create("agreement", attack="i_fgsm", steps=4)(s, t, images, labels, epsilon=0.3)
    adversarial = attacks.create("i_fgsm", steps=4)(s, images, labels, epsilon=0.3)
    expected: dict[str, list[float]] = {name: [] for name in found}
    for x, a, y in zip(images, adversarial, labels.tolist(), strict=True):
        clean = [int(model(x[None]).argmax()) for model in (s, t)]
        after = [int(model(a[None]).argmax()) for model in (s, t)]
        expected["agreement"].append(float(clean[0] == clean[1]))
        errs = [said != y for said in clean]
        expected["shared_error"].append(float(all(errs)) if any(errs) else np.nan)
        success = not any(errs) and after[0] != y
        verdict = "not_fooled" if after[1] == y else "same_mistake" if after[0] == after[1] else "other_mistake"
        for name in ("same_mistake", "other_mistake", "not_fooled"):
            expected[name].append(float(name == verdict) if success else np.nan)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].values, values, err_msg=name)
        assert 0 < len(found[name].present) <= 60, name


def test_diversity_of_a_linear_surrogate_against_a_plain_loop() -> None:
    """Two images, of two labels: each is moved towards the other's features, which are linear in the pixels."""
    phi = draws(8, 5, PIXELS)
    images, labels = pictures(2, seed=4), torch.tensor([0, 1])
    target = Linear(draws(9, 2, PIXELS))
    surrogate = small(1)
    surrogate.encoder = encoder([phi])
    surrogate.head.weight = draws(2, 2, 5)
    surrogate.head.bias = torch.zeros(2).double()
    found = causes.create("diversity", layers=0)(surrogate, target, images, labels)
    for row in range(2):
        x, other = images[row].flatten().numpy(), images[1 - row].flatten().numpy()
        moved, momentum = x.copy(), np.zeros(PIXELS)
        for _ in range(10):
            down = -2 * phi.numpy().T @ (phi.numpy() @ (moved - other)) / 5
            momentum = momentum + down / np.abs(down).mean()
            moved = np.clip(moved + 0.007 * np.sign(momentum), np.maximum(x - 0.07, 0), np.minimum(x + 0.07, 1))
        z = target.weight.numpy() @ moved
        loss = np.log(np.exp(z).sum()) - z[1 - row]
        np.testing.assert_allclose(found["diversity"].values[row], loss, rtol=1e-9)


def test_diversity_needs_another_label() -> None:
    found = causes.create("diversity")(small(1), small(2), IMAGES, torch.ones(5, dtype=torch.int64))
    assert found["diversity"].counts == {"no other label among the images": 5}


def test_a_model_shares_its_own_features() -> None:
    """Images that look like others to a model fool that model more than one of other features."""
    images = pictures(40, seed=5)
    s, other = small(1), small(2)
    labels = s(images).argmax(dim=1)
    create = causes.create("diversity", radius=0.5, step_size=0.05)
    own, foreign = (create(s, model, images, labels)["diversity"].mean for model in (s, other))
    assert own is not None
    assert foreign is not None
    assert own < foreign


# --- confidence ------------------------------------------------------------------------------------------


def test_entropy() -> None:
    weight = draws(1, 3, PIXELS)
    uniform = Linear(torch.zeros(3, PIXELS, dtype=torch.float64))
    found = causes.create("confidence")(Linear(1000 * weight), uniform, IMAGES)
    np.testing.assert_allclose(found["entropy_target"].values, np.log(3), rtol=1e-12)
    np.testing.assert_allclose(found["entropy_surrogate"].values, 0.0, atol=1e-12)
    plain = causes.create("confidence")(Linear(weight), uniform, IMAGES)["entropy_surrogate"].values
    z = IMAGES.flatten(1).numpy() @ weight.numpy().T
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(plain, -(p * np.log(p)).sum(axis=1), rtol=1e-10)


def test_curvature_of_a_transformer(tiny_vit: Path) -> None:
    """Attention is differentiated twice; twenty products come close to all 768 eigenvalues' largest."""
    base = load_encoder(str(tiny_vit)).double()
    model = Classifier(base, Head(draws(1, 3, 32), draws(2, 3))).eval()
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    label = torch.tensor([1])
    found = causes.create("smoothness")(model, model, image, label)["curvature_target"].values

    def loss(pixels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(model(pixels.view(1, 3, 16, 16)), label)

    with sdpa_kernel(SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(loss, image.flatten(), vectorize=False)
    values = np.linalg.eigvalsh(hessian.numpy())
    largest = values[np.abs(values).argmax()]
    np.testing.assert_allclose(found, largest, rtol=0.01)
    assert abs(found[0]) <= abs(largest) * (1 + 1e-9)
