"""Diagnostics in weight space against NumPy and paths with a known barrier."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mergerisk import causes
from mergerisk.causes.subspace_alignment import top_left
from mergerisk.errors import UserError
from mergerisk.models import Classifier, Encoder, Head
from tests.causes.models import draws, pictures
from tests.tiny import tiny_encoder

Array = np.ndarray[Any, Any]


def vector(one: Encoder, other: Encoder) -> Array:
    """All that differs, but for integers, as one vector."""
    states = one.state(), other.state()
    names = [name for name, tensor in states[0].items() if tensor.is_floating_point()]
    return np.concatenate([(states[0][n].double() - states[1][n].double()).flatten().numpy() for n in names])


# --- distance --------------------------------------------------------------------------------------------


def test_distances_of_whole_vectors() -> None:
    base, expert, other, merge = (tiny_encoder(seed) for seed in (0, 1, 2, 3))
    merge.backbone.counter += 5
    experts = {"a": expert, "b": other}
    found = causes.create("weight_distance")(expert, merge, base=base, experts=experts)
    tau, delta, rest = vector(expert, base), vector(merge, base), vector(merge, expert)
    norm = np.linalg.norm
    expected = {
        "weight_distance": norm(rest) / norm(tau),
        "weight_cosine": tau @ delta / norm(tau) / norm(delta),
        "sign_conflicts": (tau * delta < 0).sum() / (tau * delta != 0).sum(),
        "norm_spread": max(norm(tau), norm(vector(other, base))) / min(norm(tau), norm(vector(other, base))),
    }
    assert {name: column.values.tolist() for name, column in found.items()} == {
        name: pytest.approx([value], rel=1e-9) for name, value in expected.items()
    }


def test_the_ingredient_itself_the_base_and_the_flipped_task_vector() -> None:
    base, expert = tiny_encoder(0), tiny_encoder(1)
    flipped = base.with_state(
        {n: 2 * t - expert.state()[n] if t.is_floating_point() else t for n, t in base.state().items()}
    )
    create = causes.create("weight_distance")
    same, none, away = (create(expert, merge, base=base) for merge in (expert, base, flipped))
    assert [same[name].mean for name in ("weight_distance", "weight_cosine", "sign_conflicts")] == [0, 1, 0]
    assert none["weight_distance"].mean == 1
    assert none["weight_cosine"].counts == {"the merge equals the base": 1}
    assert away["weight_distance"].mean == pytest.approx(2, rel=1e-6)
    assert away["weight_cosine"].mean == pytest.approx(-1, rel=1e-6)
    assert away["sign_conflicts"].mean == 1
    assert same["norm_spread"].counts == {"no experts are given": 1}
    unmoved = create(base, expert, base=base)
    assert unmoved["weight_distance"].counts == {"the ingredient equals the base": 1}


def test_running_statistics_and_tied_names_do_not_count() -> None:
    first = {"w": torch.ones(2), "norm.running_mean": torch.zeros(2), "norm.running_var": torch.ones(2)}
    tied = first | {"again": first["w"]}
    moved = {name: tensor + (3 if name == "w" else 100) for name, tensor in first.items()}
    moved["again"] = moved["w"]
    plain = causes.create("weight_distance")(moved, {**moved, "w": torch.tensor([1.0, 4.0])}, base=tied)
    assert plain["weight_distance"].mean == pytest.approx(3 / math.sqrt(18))


def test_other_architectures_are_refused() -> None:
    with pytest.raises(UserError, match=r"^weight_distance: the target: tensor .* is missing"):
        causes.create("weight_distance")({"a": torch.ones(1)}, {}, base={"a": torch.ones(1)})
    with pytest.raises(UserError, match="the surrogate: tensor 'a' holds NaN"):
        causes.create("weight_distance")(
            {"a": torch.tensor([math.nan])}, {"a": torch.ones(1)}, base={"a": torch.ones(1)}
        )


# --- subspaces -------------------------------------------------------------------------------------------


def test_the_share_of_a_task_inside_the_merges_directions() -> None:
    left, right = (torch.linalg.qr(draws(seed, 6, 6))[0] for seed in (1, 2))
    base = draws(3, 6, 6)
    merge = base + 5 * torch.outer(left[:, 0], right[:, 0]) + 4 * torch.outer(left[:, 1], right[:, 1])
    expert = base + 3 * torch.outer(left[:, 1], right[:, 4]) + 4 * torch.outer(left[:, 2], right[:, 0])
    states = [{"m": state, "bias": torch.ones(3).double()} for state in (base, expert, merge)]
    found = causes.create("subspace_alignment")(states[1], states[2], base=states[0])
    assert found.rows == ("m", "all")
    np.testing.assert_allclose(found["subspace_alignment"].values, 3 / 5, rtol=1e-9)
    one = causes.create("subspace_alignment", kept=0.5)(states[1], states[2], base=states[0])
    np.testing.assert_allclose(one["subspace_alignment"].values, 0, atol=1e-9)


@pytest.mark.parametrize(("first", "count"), [(3.0, 2), (3.1, 1), (1e6, 1)])
def test_as_few_directions_as_hold_the_share(first: float, count: int) -> None:
    """3 / √10 is 0.949, 3.1 / √10.61 is 0.952."""
    matrix = torch.diag(torch.tensor([first, 1.0]).double())
    assert top_left(matrix, 0.95).shape == (2, count)


def test_matrices_that_do_not_move_are_missing() -> None:
    base = {"m": torch.zeros(3, 3), "n": torch.zeros(2, 2)}
    merge = {"m": torch.eye(3), "n": torch.zeros(2, 2)}
    found = causes.create("subspace_alignment")(merge, merge, base=base)["subspace_alignment"]
    assert found.values[[0, 2]] == pytest.approx([1, 1])
    assert found.counts == {"the ingredient leaves it as in the base": 1}
    nothing = causes.create("subspace_alignment")(base, base, base=base)["subspace_alignment"]
    assert nothing.counts == {"the ingredient leaves it as in the base": 2, "no matrix is moved by both": 1}


# --- interference ----------------------------------------------------------------------------------------


def naive_interference(tasks: list[Array]) -> float:
    rank = max(1, min(tasks[0].shape) // len(tasks))
    parts = [np.linalg.svd(task, full_matrices=False) for task in tasks]
    u = np.concatenate([p[0][:, :rank] for p in parts], axis=1)
    s = np.concatenate([p[1][:rank] for p in parts])
    v = np.concatenate([p[2][:rank].T for p in parts], axis=1)
    return float(np.abs((u.T @ u - np.eye(len(s))) @ np.diag(s) @ (v.T @ v - np.eye(len(s)))).sum())


def test_interference_with_plain_decompositions() -> None:
    base = draws(0, 7, 5)
    tasks = [draws(seed, 7, 5) for seed in (1, 2)]
    experts = {str(place): {"m": base + task} for place, task in enumerate(tasks)}
    merge = {"m": base + 0.4 * sum(tasks)}
    found = causes.create("interference")(None, merge, base={"m": base}, experts=experts)
    expected = naive_interference([task.numpy() for task in tasks])
    np.testing.assert_allclose(found["interference"].values, expected, rtol=1e-9)
    sizes = [np.linalg.svd(task.numpy())[1][:2].sum() for task in tasks]
    np.testing.assert_allclose(found["interference_relative"].values, expected / sum(sizes), rtol=1e-9)


def test_tasks_in_orthogonal_subspaces_do_not_interfere() -> None:
    tasks = [torch.zeros(6, 6).double() for _ in range(2)]
    tasks[0][:3, :3], tasks[1][3:, 3:] = draws(1, 3, 3), draws(2, 3, 3)
    base = {"m": torch.zeros(6, 6).double()}
    experts = {str(place): {"m": task} for place, task in enumerate(tasks)}
    found = causes.create("interference")(None, {"m": 0.7 * sum(tasks)}, base=base, experts=experts)
    np.testing.assert_allclose(found["interference"].values, 0, atol=1e-9)
    np.testing.assert_allclose(found["over_accumulation"].values, 0.7, rtol=1e-9)


@pytest.mark.parametrize(("copies", "expected"), [(1, 0.3), (3, 0.9)])
def test_equal_tasks_add_up(copies: int, expected: float) -> None:
    task = {"m": draws(1, 5, 4)}
    base = {"m": torch.zeros(5, 4).double()}
    experts = {str(place): task for place in range(copies)}
    merge = {"m": 0.3 * copies * task["m"]}
    found = causes.create("interference")(None, merge, base=base, experts=experts)
    np.testing.assert_allclose(found["over_accumulation"].values, expected, rtol=1e-9)


def test_no_task_no_interference() -> None:
    still = {"m": torch.zeros(3, 3)}
    found = causes.create("interference")(None, still, base=still, experts={"a": still})
    assert found["interference"].counts == {"no task moves it": 2}
    assert found["over_accumulation"].counts == {"no task moves where the merge does": 2}


# --- barriers --------------------------------------------------------------------------------------------


class Squared(nn.Module):
    """Images → w², whatever they show."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight], dtype=torch.float64))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.weight**2 + 0.0 * pixels.flatten(1).sum(dim=1, keepdim=True)


def squared(weight: float) -> Classifier:
    found = Encoder(Squared(weight), width=1, image_size=2, mean=(0.0,) * 3, std=(1.0,) * 3).double()
    head = Head(torch.tensor([[1.0], [0.0]]).double(), torch.zeros(2).double())
    return Classifier(found.requires_grad_(False).eval(), head).eval()


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_a_path_with_a_known_barrier() -> None:
    """The loss of class 0 is softplus(−w²): from w = −2 to 2 it rises to log 2 in the middle; from 0 to 2 it
    falls, slowly at first."""
    images, labels = pictures(3), torch.zeros(3, dtype=torch.int64)
    found = causes.create("loss_barrier")(squared(-2.0), squared(2.0), images, labels, base=squared(0.0))
    assert found.rows == ("ingredient", "base")
    places = np.linspace(0, 1, 11)
    excess = [softplus(-((2 * a) ** 2)) - (1 - a) * math.log(2) - a * softplus(-4.0) for a in places]
    expected = [math.log(2) - softplus(-4.0), max(excess)]
    np.testing.assert_allclose(found["loss_barrier"].values, expected, rtol=1e-12)
    # No pixel matters, so that attacked images are the clean ones.
    np.testing.assert_allclose(found["adversarial_loss_barrier"].values, expected, rtol=1e-12)


def test_a_barriers_work_is_planned_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another image adds to the images that encoders are shown, with a graph and without."""
    shown, forward, diagnostic = {True: 0, False: 0}, Encoder.forward, causes.create("loss_barrier", points=5)

    def counted(self: Encoder, images: Tensor) -> Tensor:
        shown[torch.is_grad_enabled()] += len(images)
        return forward(self, images)

    monkeypatch.setattr(Encoder, "forward", counted)
    totals = []
    for count in (3, 4):
        before = dict(shown)
        diagnostic(
            squared(-2.0), squared(2.0), pictures(count), torch.zeros(count, dtype=torch.int64), base=squared(0.0)
        )
        totals.append({graph: shown[graph] - before[graph] for graph in shown})
    planned = diagnostic.passes_per_image(0)
    assert totals[1][True] - totals[0][True] == planned["gradient"] == 10
    answers = 2  # what the ingredient calls the attacked image, and its features
    assert totals[1][False] - totals[0][False] - answers == planned["forward"] == 4 * 5


def test_a_convex_path_has_no_barrier() -> None:
    images, labels = pictures(3), torch.ones(3, dtype=torch.int64)
    found = causes.create("loss_barrier")(squared(-2.0), squared(2.0), images, labels, base=squared(2.0))
    assert found["loss_barrier"].values == pytest.approx([0, 0], abs=1e-12)


def test_statistics_are_estimated_anew_on_the_path() -> None:
    """Two networks whose running statistics are nonsense, but whose weights are the same."""

    def network(mean: float) -> Classifier:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten())
        body[1].running_mean.fill_(mean)
        made = Encoder(body, width=16, image_size=2, mean=(0.0,) * 3, std=(1.0,) * 3)
        head = Head(draws(3, 3, 16).float(), torch.zeros(3))
        return Classifier(made.requires_grad_(False).eval(), head).eval()

    images, labels = pictures(8).float(), torch.arange(8) % 3
    one, other = network(0.0), network(100.0)
    found = causes.create("loss_barrier", points=3)(one, other, images, labels, base=one)
    assert found["loss_barrier"].values == pytest.approx([0, 0], abs=1e-5)


def test_an_adapter_is_no_place_on_the_path() -> None:
    merge = squared(1.0)
    merge.adapter = nn.Identity()
    with pytest.raises(UserError, match="the target has an adapter behind its weights"):
        causes.create("loss_barrier")(
            squared(0.0), merge, pictures(2), torch.zeros(2, dtype=torch.int64), base=squared(0.0)
        )
