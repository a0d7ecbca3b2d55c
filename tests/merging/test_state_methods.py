"""Every data-free method against float64 transcriptions, and what each promises of any input."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from mergerisk import merging
from mergerisk.errors import UserError
from mergerisk.models import Encoder
from mergerisk.randomness import generator
from tests.naive import merging as naive_merging
from tests.naive import state_methods as naive
from tests.tiny import tiny_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypothesis.strategies import DrawFn

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Parameters = dict[str, Any]

VARIANTS: list[tuple[str, Parameters]] = [
    ("weight_averaging", {}),
    ("task_arithmetic", {}),
    ("ties", {}),
    ("ties", {"variant": "sum", "trim": "per_tensor"}),
    ("dare", {}),
    ("dare", {"rescale": "l1_norm", "then": "ties"}),
    ("della", {"drop_rate": 0.5, "window": 0.6}),
    ("della", {"elect": False}),
    ("wudi", {"steps": 5, "learning_rate": 0.01}),
    ("wudi", {"variant": "closed_form"}),
    ("doge_ta", {"steps": 5, "learning_rate": 0.01, "scaling": 0.5, "subspace": 2}),
    ("tsv_m", {}),
    ("iso_c", {}),
    ("iso_cts", {"common": 0.4}),
    ("consensus", {"agreement": 1}),
    ("pcb", {}),
    ("breadcrumbs", {}),
    ("breadcrumbs", {"granularity": "tensor"}),
    ("emr", {}),
    ("emr", {"rescale": "tensor_mean"}),
    ("model_stock", {}),
    ("slerp", {"t": 0.3}),
]
DATA_FREE = list(dict.fromkeys(name for name, _ in VARIANTS))
ELSEWHERE = ["lines", "svc", "opcm", "knots_ties"]
"""Tested in ``test_wrapped.py``, ``test_sequential.py`` and ``test_knots.py``, on states with blocks."""
SHAPES: Shapes = {
    "scale": (),
    "bias": (7,),
    "wide": (4, 9),
    "tall": (8, 5),
    "square": (6, 6),
    "conv": (3, 2, 3, 3),
    "one": (1,),
    "norm.running_mean": (5,),
    "norm.running_var": (5,),
}
STATISTICS = ("norm.running_mean", "norm.running_var")


# --- states ----------------------------------------------------------------------------------------------


def states(
    count: int, dtype: torch.dtype = torch.float64, seed: int = 0, *, shapes: Shapes = SHAPES, exact: bool = False
) -> tuple[State, list[State]]:
    """A base and ``count`` experts, with integer and boolean buffers that differ between them.

    ``exact``: every sum and difference is exact in float32, and no two entries of a task vector have the same
    magnitude, so that float32 selects the entries float64 selects.
    """
    draws = torch.Generator().manual_seed(seed)

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    def buffers() -> State:
        return {
            "norm.num_batches_tracked": torch.randint(0, 1000, (), generator=draws),
            "position_ids": torch.randint(0, 1000, (1, 4), generator=draws),
            "mask": torch.rand(4, generator=draws) < 0.5,
        }

    def expert() -> State:
        if not exact:
            taus = {name: 0.5 * normal(shape) for name, shape in shapes.items()}
        else:
            sizes = [math.prod(shape) for shape in shapes.values()]
            ranks = (torch.randperm(sum(sizes), generator=draws) + 1).split(sizes)
            taus = {
                name: (own / 1024 * normal((len(own),)).sign()).reshape(shape)
                for (name, shape), own in zip(shapes.items(), ranks, strict=True)
            }
        return {name: (weights[name] + tau).to(dtype) for name, tau in taus.items()} | buffers()

    weights = {name: normal(shape) for name, shape in shapes.items()}
    if exact:
        weights = {name: (value * 64).round() / 64 for name, value in weights.items()}
    base = {name: value.to(dtype) for name, value in weights.items()} | buffers()
    return base, [expert() for _ in range(count)]


def floats(state: State) -> list[str]:
    return [name for name, value in state.items() if value.is_floating_point()]


def copied(state: State) -> State:
    return {name: value.clone() for name, value in state.items()}


class Bag(nn.Module):
    """A backbone that is nothing but a state."""

    def __init__(self, state: State) -> None:
        super().__init__()
        for name, value in state.items():
            *path, own = name.split(".")
            place: nn.Module = self
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            if value.is_floating_point():
                place.register_parameter(own, nn.Parameter(value, requires_grad=False))
            else:
                place.register_buffer(own, value)


def encoder(state: State) -> Encoder:
    return Encoder(Bag(state), width=1, image_size=4, mean=(0.5,) * 3, std=(0.5,) * 3)


# --- both sides ------------------------------------------------------------------------------------------


def merge(name: str, base: State, experts: Sequence[State], *, seed: int = 0, **parameters: Any) -> list[State]:
    """The merged state, or one per task where a method has an encoder for each."""
    if name != "emr":
        return [merging.merge_state_dicts(name, base, experts, seed=seed, **parameters)]
    tasks = {str(position): encoder(expert) for position, expert in enumerate(experts)}
    merged = merging.create(name, **parameters).merge(encoder(base), tasks, seed=seed)
    found = [merged.encoder_for(task).state() for task in tasks]
    return [{key: state[key] for key in base} for state in found]


def drawn(experts: Sequence[State], seed: int, name: str) -> list[State]:
    """What decides which entries are dropped: a stream for every expert and for what its tensor holds."""

    def draws(value: Tensor, position: int) -> Tensor:
        digest = hashlib.blake2b(np.array(value.tolist(), dtype="<f4").tobytes(), digest_size=16).hexdigest()
        return torch.rand(value.shape, generator=generator(seed, name, position, digest))

    return [
        {name: draws(value, position) for name, value in expert.items()} for position, expert in enumerate(experts)
    ]


def expected(name: str, base: State, experts: Sequence[State], *, seed: int = 0, **parameters: Any) -> list[State]:
    """What :func:`merge` must give."""

    def one(task: int = 0) -> State:
        def method(start: State, others: list[State]) -> State:
            if name == "emr":
                return naive.emr(start, others, **parameters).states[task]
            if name == "dare":
                rate = parameters.get("drop_rate", 0.5)
                masks = [{key: own >= rate for key, own in one.items()} for one in drawn(others, seed, "dare")]
                return naive.dare(start, others, masks, **parameters)
            if name == "della":
                return naive.della(start, others, drawn(others, seed, "della"), **parameters)
            module = naive_merging if name in {"weight_averaging", "ties"} else naive
            result: State = getattr(module, name)(start, others, **parameters)
            return result

        return naive.settle(method, base, experts, own=task if name == "emr" else None)

    return [one(task) for task in range(len(experts) if name == "emr" else 1)]


def assert_close(actual: Sequence[State], wanted: Sequence[State], *, rtol: float, atol: float) -> None:
    assert len(actual) == len(wanted)
    for found, state in zip(actual, wanted, strict=True):
        assert list(found) == list(state)
        for name, value in state.items():
            loose = float(value.is_floating_point())
            torch.testing.assert_close(
                found[name], value, rtol=loose * rtol, atol=loose * atol, msg=f"{name}: ".__add__
            )


def assert_same(actual: Sequence[State], wanted: Sequence[State]) -> None:
    assert_close(actual, wanted, rtol=0.0, atol=0.0)


SCALED = [case for case in VARIANTS if case[0] not in {"weight_averaging", "emr", "model_stock", "slerp"}]
SINGULAR = {"tsv_m", "iso_c", "iso_cts"}
SPECTRAL = {*SINGULAR, "wudi", "doge_ta"}
"""Decompositions, or slopes that rounding may turn where they are small, make these less exact."""
ORDERLESS = [case for case in VARIANTS if case[0] not in {"dare", "della", "emr", "slerp"}]


def label(case: object) -> str:
    if isinstance(case, tuple):
        name, parameters = case
        return "-".join([name, *(f"{key}={value}" for key, value in parameters.items())])
    return str(case).removeprefix("torch.")


def usual_count(name: str) -> int:
    return 2 if name == "slerp" else 3


# --- against the transcriptions --------------------------------------------------------------------------

CASES: list[tuple[str, Parameters]] = [
    ("weight_averaging", {}),
    *(("task_arithmetic", {"scaling": scaling}) for scaling in (0.3, 1.0, -0.5)),
    ("task_arithmetic", {}),
    *(
        ("ties", {"variant": variant, "trim": trim})
        for variant in ("mean", "sum")
        for trim in ("global", "per_tensor")
    ),
    ("dare", {}),
    ("dare", {"drop_rate": 0.0}),
    ("dare", {"drop_rate": 0.9, "scaling": 0.7}),
    ("dare", {"drop_rate": 0.8, "rescale": "l1_norm"}),
    ("dare", {"then": "ties"}),
    ("dare", {"then": "ties", "variant": "sum"}),
    ("dare", {"then": "ties", "trim": "per_tensor", "density": 0.6, "scaling": 0.8, "rescale": "l1_norm"}),
    ("della", {}),
    ("della", {"window": 0.0, "elect": False}),
    ("della", {"drop_rate": 0.8, "window": 0.39, "variant": "sum"}),
    ("della", {"drop_rate": 0.5, "window": 0.9, "rescale": "l1_norm", "scaling": 0.7}),
    ("della", {"elect": False, "scaling": 0.5}),
    ("wudi", {"steps": 3, "others": "mean"}),
    ("wudi", {"steps": 30, "learning_rate": 0.02, "scaling": 0.5}),
    ("wudi", {"variant": "closed_form", "others": "mean"}),
    ("doge_ta", {"steps": 3, "others": "mean"}),
    ("doge_ta", {"steps": 30, "learning_rate": 0.01, "scaling": 0.6, "subspace": 1, "density": 0.7}),
    ("doge_ta", {"steps": 30, "learning_rate": 0.01, "scaling": 0.6, "subspace": 2, "density": 1.0}),
    ("tsv_m", {}),
    ("tsv_m", {"scaling": 0.6}),
    ("iso_c", {}),
    ("iso_c", {"scaling": 1.5}),
    *(("iso_cts", {"common": common}) for common in (0.0, 0.25, 0.4, 0.6, 0.8, 1.0)),
    ("iso_cts", {"common": 0.4, "scaling": 1.5}),
    ("iso_cts", {}),
    ("consensus", {"agreement": 1}),
    ("consensus", {"agreement": 1, "threshold": 0.75}),
    ("consensus", {"agreement": 2}),
    ("consensus", {"agreement": 2, "threshold": 0.0, "scaling": 1.0}),
    ("consensus", {"agreement": 3, "threshold": 0.25}),
    ("pcb", {}),
    ("pcb", {"density": 1.0}),
    ("pcb", {"density": 0.3, "clip": 0.1, "scaling": 0.9}),
    ("pcb", {"density": 0.2, "clip": 0.0}),
    ("pcb", {"density": 0.5, "clip": 0.49}),
    ("breadcrumbs", {}),
    ("breadcrumbs", {"granularity": "tensor"}),
    *(("breadcrumbs", {"density": density, "drop_top": top}) for density in (0.4, 1.0) for top in (0.0, 0.35)),
    ("emr", {}),
    ("emr", {"rescale": "tensor_mean"}),
    ("model_stock", {}),
    *(("slerp", {"t": t}) for t in (0.0, 0.2, 0.5, 1.0)),
    ("slerp", {}),
]
COUNTED = [
    (case, count)
    for case in CASES
    for count in (1, 2, 3, 5)
    if (case[0] != "slerp" or count == 2) and case[1].get("agreement", 1) <= count
]
PER_EXPERT: list[tuple[str, Parameters]] = [
    ("weight_averaging", {"coefficients": (0.5, 0.125, 0.375)}),
    ("task_arithmetic", {"scaling": (0.5, 0.0, -0.25)}),
    ("consensus", {"threshold": (0.25, 0.5, 0.875)}),
]


@pytest.mark.parametrize(("case", "count"), [*COUNTED, *((case, 3) for case in PER_EXPERT)], ids=label)
def test_matches_naive(case: tuple[str, Parameters], count: int) -> None:
    name, parameters = case
    base, experts = states(count)
    merged = merge(name, base, experts, seed=4, **parameters)
    error = 1e-9 if name in SPECTRAL else 1e-12
    assert_close(merged, expected(name, base, experts, seed=4, **parameters), rtol=error, atol=error / 10)


@pytest.mark.parametrize(("case", "count"), [*COUNTED, *((case, 3) for case in PER_EXPERT)], ids=label)
def test_matches_naive_in_float32(case: tuple[str, Parameters], count: int) -> None:
    """Values near 1 carry an error of some 1e-7; singular vectors amplify it by how near their values lie."""
    name, parameters = case
    if name == "consensus":
        parameters = {"threshold": 0.375} | parameters  # products with it are exact, too
    base, experts = states(count, torch.float32, exact=True)
    merged = merge(name, base, experts, seed=4, **parameters)
    error = 2e-5 if name in SPECTRAL else 1e-6
    assert_close(merged, expected(name, base, experts, seed=4, **parameters), rtol=error, atol=error)


quick = settings(max_examples=30, deadline=None, derandomize=True)
any_shapes = st.lists(st.lists(st.integers(1, 5), max_size=4).map(tuple), min_size=1, max_size=4).map(
    lambda found: {f"p{position}": shape for position, shape in enumerate(found)}
)
seeds = st.integers(0, 2**31)


@st.composite
def problems(draw: DrawFn, variants: Sequence[tuple[str, Parameters]], most: int = 4) -> tuple[Any, ...]:
    """A method, its hyper-parameters, a base and experts, all in float64."""
    name, parameters = draw(st.sampled_from(variants))
    count = 2 if name == "slerp" else draw(st.integers(parameters.get("agreement", 1), most))
    return name, parameters, *states(count, seed=draw(seeds), shapes=draw(any_shapes))


@given(problem=problems(CASES), seed=st.integers(0, 9))
@settings(quick, max_examples=120)
def test_matches_naive_on_any_shapes(problem: tuple[str, Parameters, State, list[State]], seed: int) -> None:
    name, parameters, base, experts = problem
    merged = merge(name, base, experts, seed=seed, **parameters)
    assert_close(merged, expected(name, base, experts, seed=seed, **parameters), rtol=1e-9, atol=1e-10)


def test_all_data_free_methods_are_tested_here() -> None:
    found = [name for name in merging.METHODS.names() if not merging.METHODS.load(name).needs_calibration]
    assert sorted([*DATA_FREE, *ELSEWHERE]) == sorted(found)
    assert {name for name, _ in CASES} == set(DATA_FREE)


DEFAULTS: dict[str, Parameters] = {
    "weight_averaging": {"coefficients": None},
    "task_arithmetic": {"scaling": 0.3},
    "ties": {"variant": "mean", "trim": "global", "density": 0.2, "scaling": None},
    "dare": {
        "drop_rate": 0.5,
        "rescale": "expected",
        "then": "task_arithmetic",
        "scaling": None,
        "variant": "mean",
        "trim": "global",
        "density": 0.2,
    },
    "della": {
        "drop_rate": 0.3,
        "window": 0.14,
        "rescale": "expected",
        "elect": True,
        "variant": "mean",
        "scaling": None,
    },
    "wudi": {
        "variant": "early_stopped",
        "steps": 300,
        "learning_rate": 1e-5,
        "others": "base",
        "scaling": 1.0,
    },
    "doge_ta": {
        "scaling": 0.07,
        "density": 0.3,
        "subspace": 6,
        "steps": 400,
        "learning_rate": 1e-4,
        "others": "base",
    },
    "tsv_m": {"scaling": 1.0},
    "iso_c": {"scaling": 1.0},
    "iso_cts": {"common": 0.8, "scaling": 1.0},
    "consensus": {"threshold": 0.4, "agreement": 2, "scaling": 0.3},
    "pcb": {"density": 0.05, "clip": 0.0001, "scaling": 1.2},
    "breadcrumbs": {"density": 0.2, "drop_top": 0.1, "granularity": "row", "scaling": 0.4},
    "emr": {"rescale": "sum"},
    "model_stock": {},
    "slerp": {"t": 0.5},
}


@pytest.mark.parametrize("name", DATA_FREE)
def test_defaults_are_the_papers(name: str) -> None:
    method = merging.create(name)
    assert method == merging.create(name, **DEFAULTS[name])
    assert {field.name for field in dataclasses.fields(method)} == set(DEFAULTS[name])  # type: ignore[arg-type]


# --- what some of them promise ---------------------------------------------------------------------------


@given(
    case=st.sampled_from(
        [
            ("weight_averaging", {}),
            ("ties", {"variant": "mean", "density": 1.0, "scaling": 1.0}),
            ("model_stock", {}),
            ("slerp", {"t": 0.5}),
            ("slerp", {"t": 0.13}),
            ("emr", {}),
            ("emr", {"rescale": "tensor_mean"}),
            ("tsv_m", {}),
            ("iso_c", {}),
        ]
    ),
    count=st.integers(1, 5),
    shapes=any_shapes,
    seed=seeds,
)
@settings(quick, max_examples=60)
def test_copies_of_one_expert_merge_to_it(
    case: tuple[str, Parameters], count: int, shapes: Shapes, seed: int
) -> None:
    """TSV-M only if it is alone: each of T copies may keep 1/T of its directions. Iso-C never, but for vectors."""
    name, parameters = case
    if name == "iso_c":
        shapes = {key: (math.prod(shape),) for key, shape in shapes.items()}
    count = {"slerp": 2, "tsv_m": 1}.get(name, count)
    base, (expert,) = states(1, seed=seed, shapes=shapes)
    merged = merge(name, base, [copied(expert) for _ in range(count)], **parameters)
    wanted = {key: value if value.is_floating_point() else base[key] for key, value in expert.items()}
    assert_close(merged, [wanted] * len(merged), rtol=1e-10, atol=1e-12)


@given(problem=problems(ORDERLESS), data=st.data())
@settings(quick, max_examples=60)
def test_order_of_experts_does_not_matter(
    problem: tuple[str, Parameters, State, list[State]], data: st.DataObject
) -> None:
    name, parameters, base, experts = problem
    order = data.draw(st.permutations(range(len(experts))))
    one = merge(name, base, experts, **parameters)
    assert_close(merge(name, base, [experts[place] for place in order], **parameters), one, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", PER_EXPERT, ids=label)
def test_values_per_expert_follow_their_experts(case: tuple[str, Parameters]) -> None:
    name, parameters = case
    base, experts = states(3)
    one = merge(name, base, experts, **parameters)
    order = (2, 0, 1)
    moved: Parameters = {key: tuple(values[i] for i in order) for key, values in parameters.items()}
    two = merge(name, base, [experts[i] for i in order], **moved)
    assert_close(two, one, rtol=1e-12, atol=1e-13)


def test_emr_does_not_depend_on_the_order_of_tasks() -> None:
    base, experts = states(4)
    order = (2, 0, 3, 1)
    one, two = merge("emr", base, experts), merge("emr", base, [experts[i] for i in order])
    assert_close(two, [one[i] for i in order], rtol=1e-12, atol=1e-13)


@given(t=st.floats(0, 1), shapes=any_shapes, seed=seeds)
@quick
def test_slerp_is_symmetric(t: float, shapes: Shapes, seed: int) -> None:
    base, (one, other) = states(2, seed=seed, shapes=shapes)
    there, back = merge("slerp", base, [one, other], t=t), merge("slerp", base, [other, one], t=1 - t)
    assert_close(there, back, rtol=1e-10, atol=1e-12)


def test_slerp_turns_at_a_constant_rate_and_keeps_the_length() -> None:
    base = {"w": torch.zeros(2, dtype=torch.float64)}
    for angle, t in itertools.product((0.1, 1.0, 2.5, 3.0), (0.0, 0.25, 0.5, 1.0)):
        one, other = ({"w": torch.tensor([math.cos(at), math.sin(at)]).double()} for at in (0.3, 0.3 + angle))
        wanted = torch.tensor([math.cos(0.3 + t * angle), math.sin(0.3 + t * angle)]).double()
        (merged,) = merge("slerp", base, [one, other], t=t)
        torch.testing.assert_close(merged["w"], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("one", "other"), [([1.0, 2.0], [-1.0, -2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [1.001, 2.001])]
)
def test_slerp_is_linear_where_no_arc_is_defined(one: list[float], other: list[float]) -> None:
    """Opposite vectors, a zero vector, and an arc as good as straight."""
    values = [torch.tensor(vector, dtype=torch.float64) for vector in (one, other)]
    (merged,) = merge("slerp", {"w": values[0]}, [{"w": value} for value in values], t=0.25)
    torch.testing.assert_close(merged["w"], 0.75 * values[0] + 0.25 * values[1], rtol=1e-12, atol=1e-12)


@given(problem=problems(SCALED), dtype=st.sampled_from([torch.float32, torch.float64]))
@settings(quick, max_examples=60)
def test_scaling_zero_gives_the_base(
    problem: tuple[str, Parameters, State, list[State]], dtype: torch.dtype
) -> None:
    name, parameters, base, experts = problem
    base, *experts = ({key: value.to(dtype) for key, value in state.items()} for state in (base, *experts))
    assert_same(merge(name, base, experts, **parameters | {"scaling": 0.0}), [base])


# --- DARE ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dare_drops_the_promised_share_and_rescales_the_rest(rate: float) -> None:
    base = {"w": torch.zeros(100, 100)}
    (merged,) = merge("dare", base, [{"w": torch.ones(100, 100)}], drop_rate=rate, scaling=1.0)
    left = merged["w"][merged["w"] != 0]
    torch.testing.assert_close(left, torch.full_like(left, 1 / (1 - rate)))
    assert abs(len(left) / 1e4 - (1 - rate)) <= 5 * math.sqrt(rate * (1 - rate) / 1e4)


def test_dare_restores_each_tensors_l1_norm() -> None:
    base, (expert,) = states(1)
    (merged,) = merge("dare", base, [expert], rescale="l1_norm", drop_rate=0.7, scaling=1.0)
    for name in set(floats(base)) - set(STATISTICS):
        before, after = (float((state[name] - base[name]).abs().sum()) for state in (expert, merged))
        assert after == 0.0 or after == pytest.approx(before, rel=1e-12), name
    assert not torch.equal(merged["square"], base["square"])


@pytest.mark.parametrize("rate", [0.3, 0.8])
def test_dare_is_unbiased(rate: float) -> None:
    base, (expert,) = states(1, shapes={"w": (3, 10)})
    draws = [merge("dare", base, [expert], seed=s, drop_rate=rate, scaling=1.0)[0]["w"] for s in range(400)]
    tau = expert["w"] - base["w"]
    error = torch.stack(draws).mean(dim=0) - expert["w"]
    assert bool((error.abs() <= 5 * tau.abs() * math.sqrt(rate / (1 - rate) / 400)).all())


@pytest.mark.parametrize("then", ["task_arithmetic", "ties"])
def test_dare_follows_its_seed(then: str) -> None:
    base, experts = states(3)
    one, again, other = (merge("dare", base, experts, seed=seed, then=then) for seed in (5, 5, 6))
    assert_same(one, again)
    assert not torch.equal(one[0]["square"], other[0]["square"])


def test_dare_drops_other_entries_of_other_experts_and_tensors() -> None:
    base = {"a": torch.zeros(64), "b": torch.zeros(64)}
    tuned = {"a": torch.ones(64), "b": 2 * torch.ones(64)}
    first = merge("dare", base, [tuned, base], scaling=1.0)[0]
    second = merge("dare", base, [base, tuned], scaling=1.0)[0]
    assert not torch.equal(first["a"], second["a"])
    assert not torch.equal(first["a"] > 0, first["b"] > 0)


@pytest.mark.parametrize("then", ["task_arithmetic", "ties"])
def test_dare_draws_alike_whatever_tensors_are_called(then: str) -> None:
    """Names and order on disk are not those in memory; one seed gives one result all the same."""
    base, experts = states(3)
    kept = {name: f"vit.{name}" if name.startswith("norm.") else name[::-1] for name in base}
    names = dict(sorted(kept.items(), key=lambda pair: pair[1]))
    renamed = [{new: state[name] for name, new in names.items()} for state in (base, *experts)]
    (found,) = merge("dare", base, experts, seed=3, then=then)
    (other,) = merge("dare", renamed[0], renamed[1:], seed=3, then=then)
    assert list(found) != list(other)
    assert_same([found], [{name: other[names[name]] for name in found}])


def test_dare_masks_belong_to_their_tensor() -> None:
    """Neither other tensors, nor their order, nor the dtype decide what is dropped."""
    base, experts = states(2)
    (whole,) = merge("dare", base, experts, seed=3)
    for names in (["square"], ["tall", "square"], list(reversed(base))):
        chosen = [{name: state[name] for name in names} for state in (base, *experts)]
        (part,) = merge("dare", chosen[0], chosen[1:], seed=3)
        assert_same([part], [{name: whole[name] for name in names}])
    single = [{name: state[name].float() for name in ("square",)} for state in (base, *experts)]
    (rounded,) = merge("dare", single[0], single[1:], seed=3)
    assert torch.equal(rounded["square"] == base["square"].float(), whole["square"] == base["square"])


@pytest.mark.parametrize("then", ["task_arithmetic", "ties"])
def test_dare_without_drops_is_the_method_after_it(then: str) -> None:
    base, experts = states(3)
    for rescale in ("expected", "l1_norm"):
        merged = merge("dare", base, experts, drop_rate=0.0, then=then, rescale=rescale)
        assert_close(merged, merge(then, base, experts), rtol=1e-12, atol=1e-12)


# --- DELLA -----------------------------------------------------------------------------------------------


def test_della_drops_by_rank_in_each_row_and_is_unbiased() -> None:
    """Magnitudes far apart, so that rows and tensors would rank differently; shares of 200 draws."""
    tau = torch.tensor([[1.0, -3.0, 2.0], [400.0, 200.0, -300.0]], dtype=torch.float64)
    base = {"w": torch.zeros_like(tau)}
    draws = [
        merge("della", base, [{"w": tau}], seed=seed, drop_rate=0.5, window=0.8, elect=False, scaling=1.0)[0]["w"]
        for seed in range(200)
    ]
    dropped = (torch.stack(draws) == 0).double().mean(dim=0)
    wanted = torch.tensor([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5]], dtype=torch.float64)
    assert bool(((dropped - wanted).abs() <= 5 * (wanted * (1 - wanted) / 200).sqrt()).all())
    error = (torch.stack(draws).mean(dim=0) - tau).abs()
    assert bool((error <= 5 * tau.abs() * (wanted / (1 - wanted) / 200).sqrt()).all())


def test_della_elects_the_sign_of_what_is_left() -> None:
    base, experts = states(3)
    summed, fused = (
        merge("della", base, experts, seed=2, elect=elect, scaling=1.0)[0]["square"] - base["square"]
        for elect in (False, True)
    )
    assert bool((summed * fused > 0).any())
    assert bool((summed * fused >= 0).all())


def test_della_follows_its_seed_and_draws_other_numbers_than_dare() -> None:
    base, experts = states(2)
    one, again, other = (merge("della", base, experts, seed=seed) for seed in (5, 5, 6))
    assert_same(one, again)
    assert not torch.equal(one[0]["square"], other[0]["square"])
    (plain,) = merge("della", base, experts[:1], window=0.0, elect=False, scaling=1.0)
    (dare,) = merge("dare", base, experts[:1], drop_rate=0.3, scaling=1.0)
    assert not torch.equal(plain["square"] == base["square"], dare["square"] == base["square"])


@pytest.mark.parametrize(("rate", "window"), [(0.3, 0.7), (0.8, 0.4), (0.1, 0.21)])
def test_della_refuses_probabilities_that_are_none(rate: float, window: float) -> None:
    with pytest.raises(UserError, match="window"):
        merging.create("della", drop_rate=rate, window=window)


# --- WUDI and DOGE-TA ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_wudi_in_closed_form_of_copies_is_the_expert(shape: tuple[int, int], count: int) -> None:
    base, (expert,) = states(1, shapes={"w": shape})
    (merged,) = merge("wudi", base, [copied(expert) for _ in range(count)], variant="closed_form")
    torch.testing.assert_close(merged["w"], expert["w"], rtol=1e-9, atol=1e-10)


def test_wudi_in_closed_form_adds_up_tasks_that_do_not_interfere() -> None:
    """Rows of one task are orthogonal to those of the other: none disturbs the other, and nothing need change."""
    base, experts = zero_based(2, 3, (5, 8))
    basis = torch.linalg.qr(experts[0]["w"].T).Q.T
    for expert, own in zip(experts, (basis[:2], basis[2:]), strict=True):
        expert["w"] = expert["w"][:, : len(own)] @ own
    (merged,) = merge("wudi", base, experts, variant="closed_form")
    torch.testing.assert_close(merged["w"], sum_of(experts), rtol=1e-7, atol=1e-7)


def test_wudi_by_adam_reaches_the_closed_form_which_nothing_beats() -> None:
    base, experts = zero_based(3, 4, (6, 4))
    taus = [expert["w"] for expert in experts]
    (exact,) = merge("wudi", base, experts, variant="closed_form")
    (start,) = merge("wudi", base, experts, steps=1, learning_rate=1e-12)
    (far,) = merge("wudi", base, experts, steps=3000, learning_rate=0.01)
    torch.testing.assert_close(start["w"], sum_of(experts))
    best, near, first = (float(naive.interference(one["w"], taus)) for one in (exact, far, start))
    assert best <= near < best + 1e-3 * (first - best)
    draws = torch.Generator().manual_seed(0)
    for _ in range(10):
        step = 1e-3 * torch.randn(6, 4, generator=draws, dtype=torch.float64)
        assert float(naive.interference(exact["w"] + step, taus)) > best
    (scaled,) = merge("wudi", base, [{"w": 100 * tau} for tau in taus], variant="closed_form")
    torch.testing.assert_close(scaled["w"], 100 * exact["w"], rtol=1e-9, atol=0.0)


def test_doge_ta_gives_every_task_the_same_length_whatever_its_own() -> None:
    base, experts = zero_based(2, 5, (6, 4))
    experts[1]["w"] = 1e3 * experts[1]["w"]
    still: Parameters = {"density": 1.0, "learning_rate": 1e-12, "scaling": 0.5}
    (one,) = merge("doge_ta", base, experts[:1], **still)
    assert float(one["w"].norm()) == pytest.approx(0.5, rel=1e-6)
    (both,) = merge("doge_ta", base, experts, **still)
    lengths = [expert["w"] / expert["w"].norm() for expert in experts]
    torch.testing.assert_close(both["w"], 0.5 * (lengths[0] + lengths[1]), rtol=1e-6, atol=1e-7)


def test_doge_ta_lowers_its_gap_and_leaves_what_tasks_share() -> None:
    """Two tasks write into the same two outputs, which are thus the shared space: those rows do not change. Each
    has a third of its own, where the gap is closed."""
    base, experts = zero_based(2, 6, (4, 9))
    for expert, own in zip(experts, (2, 3), strict=True):
        rows = torch.linalg.qr(expert["w"].T).Q.T
        expert["w"] = torch.zeros(4, 9, dtype=torch.float64)
        expert["w"][:2], expert["w"][own] = 5 * rows[:2], rows[own]
    parameters: Parameters = {"density": 1.0, "subspace": 2, "steps": 2000, "learning_rate": 0.1, "scaling": 0.8}
    (still,) = merge("doge_ta", base, experts, **parameters | {"steps": 1, "learning_rate": 1e-12})
    (moved,) = merge("doge_ta", base, experts, **parameters)
    torch.testing.assert_close(moved["w"][:2], still["w"][:2], rtol=1e-6, atol=1e-6)
    for expert, own in zip(experts, (2, 3), strict=True):
        row = expert["w"][own]
        gaps = [abs(float(row @ (merged["w"][own] - row))) for merged in (still, moved)]
        assert gaps[1] < 1e-2 * gaps[0]


# --- singular values -------------------------------------------------------------------------------------

matrices = st.tuples(st.integers(1, 7), st.integers(1, 7))


def zero_based(count: int, seed: int, shape: tuple[int, int]) -> tuple[State, list[State]]:
    """Experts that are their own task vectors, so that what is added is what comes out."""
    _, experts = states(count, seed=seed, shapes={"w": shape})
    return {"w": torch.zeros(shape, dtype=torch.float64)}, [{"w": expert["w"]} for expert in experts]


@given(shape=matrices, count=st.integers(1, 4), seed=seeds)
@quick
def test_iso_c_flattens_the_spectrum(shape: tuple[int, int], count: int, seed: int) -> None:
    base, experts = zero_based(count, seed, shape)
    (merged,) = merge("iso_c", base, experts)
    values = torch.linalg.svdvals(sum_of(experts))
    found = torch.linalg.svdvals(merged["w"])
    torch.testing.assert_close(found, values.mean().expand_as(values), rtol=1e-9, atol=0.0)
    assert float(merged["w"].norm()) == pytest.approx(float(values.mean()) * math.sqrt(len(values)), rel=1e-9)
    assert float((merged["w"] * sum_of(experts)).sum()) == pytest.approx(
        float(values.mean() * values.sum()), rel=1e-9
    )  # the same directions: tr(Δᵀ M) = mean σ · Σ σ


def sum_of(experts: Sequence[State]) -> Tensor:
    return torch.stack([expert["w"] for expert in experts]).sum(dim=0)


@given(shape=matrices, count=st.integers(1, 4), seed=seeds, common=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]))
@quick
def test_iso_cts_flattens_the_spectrum(shape: tuple[int, int], count: int, seed: int, common: float) -> None:
    base, experts = zero_based(count, seed, shape)
    (merged,) = merge("iso_cts", base, experts, common=common)
    found = torch.linalg.svdvals(merged["w"])
    torch.testing.assert_close(found, found.mean().expand_as(found), rtol=1e-8, atol=0.0)


@given(shape=matrices, seed=seeds, common=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]))
@quick
def test_iso_cts_of_one_expert_or_without_own_directions_is_iso_c(
    shape: tuple[int, int], seed: int, common: float
) -> None:
    base, experts = zero_based(3, seed, shape)
    one = merge("iso_cts", base, experts[:1], common=common)
    assert_close(one, merge("iso_c", base, experts[:1]), rtol=1e-9, atol=1e-10)
    all_common = merge("iso_cts", base, experts, common=1.0)
    assert_close(all_common, merge("iso_c", base, experts), rtol=1e-9, atol=1e-10)


@given(shape=matrices, count=st.integers(1, 4), seed=seeds)
@quick
def test_tsv_m_keeps_the_tasks_singular_values_and_stays_among_their_directions(
    shape: tuple[int, int], count: int, seed: int
) -> None:
    base, experts = zero_based(count, seed, shape)
    rank = max(1, min(shape) // count)
    parts = [torch.linalg.svd(expert["w"], full_matrices=False) for expert in experts]
    (merged,) = merge("tsv_m", base, experts)
    if count * rank <= min(shape):
        values = torch.cat([part.S[:rank] for part in parts]).sort(descending=True).values
        found = torch.linalg.svdvals(merged["w"])
        torch.testing.assert_close(found[: len(values)], values, rtol=1e-8, atol=0.0)
        assert float(found[len(values) :].sum()) < 1e-10
    left = torch.cat([part.U[:, :rank] for part in parts], dim=1)
    right = torch.cat([part.Vh[:rank] for part in parts]).T
    for basis, delta in ((left, merged["w"]), (right, merged["w"].T)):
        inside = basis @ torch.linalg.lstsq(basis, delta, driver="gelsd").solution
        torch.testing.assert_close(inside, delta, rtol=1e-8, atol=1e-8)


COPIES = [((6, 4), 2), ((4, 6), 3), ((5, 5), 2), ((3, 3), 5), ((2, 7), 3), ((1, 4), 2)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=label)
@pytest.mark.parametrize(("shape", "count"), COPIES)
def test_tsv_m_of_copies_is_one_truncated(shape: tuple[int, int], count: int, dtype: torch.dtype) -> None:
    """Directions that all share exactly: the packed matrices have rank r, and their null range must not count."""
    base, (expert,) = zero_based(1, 1, shape)
    left, values, right = torch.linalg.svd(expert["w"], full_matrices=False)
    rank = max(1, min(shape) // count)
    wanted = left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]
    (merged,) = merge("tsv_m", {"w": base["w"].to(dtype)}, [{"w": expert["w"].to(dtype)} for _ in range(count)])
    error = 1e-10 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(merged["w"], wanted.to(dtype), rtol=error, atol=error)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=label)
@pytest.mark.parametrize("common", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(("shape", "count"), COPIES)
def test_iso_cts_of_copies(shape: tuple[int, int], count: int, common: float, dtype: torch.dtype) -> None:
    """T copies: T times σ in the common space, every copy's same own directions beside it, one mean σ for all."""
    base, (expert,) = zero_based(1, 1, shape)
    left, values, right = torch.linalg.svd(expert["w"], full_matrices=False)
    k = min(shape)
    own = naive.own_directions(k, count, common)
    shared = k - count * own
    mean = count * values[: shared + own].sum() / k
    wanted = mean * left[:, : shared + own] @ right[: shared + own]
    (merged,) = merge(
        "iso_cts",
        {"w": base["w"].to(dtype)},
        [{"w": expert["w"].to(dtype)} for _ in range(count)],
        common=common,
    )
    error = 1e-10 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(merged["w"], wanted.to(dtype), rtol=error, atol=error)


@pytest.mark.parametrize("name", ["tsv_m", "iso_cts"])
@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (6, 6)])
def test_one_direction_shared_exactly(name: str, shape: tuple[int, int]) -> None:
    """Two experts share their largest direction to the last bit, and nothing else."""
    base, experts = zero_based(3, 2, shape)
    left, values, right = torch.linalg.svd(experts[0]["w"], full_matrices=False)
    other = torch.linalg.svd(experts[1]["w"], full_matrices=False)
    turned = other.U[:, :3] - torch.outer(left[:, 0], left[:, 0] @ other.U[:, :3])
    rest = turned @ (other.Vh[:3] - torch.outer(other.Vh[:3] @ right[0], right[0]))
    experts[1] = {"w": 3 * values[0] * torch.outer(left[:, 0], right[0]) + rest}
    assert_close(merge(name, base, experts), expected(name, base, experts), rtol=1e-8, atol=1e-8)


def spectrum(shape: tuple[int, int], decades: float, draws: torch.Generator) -> Tensor:
    """A random matrix whose singular values fall from 1 by so many powers of ten."""
    noise = torch.randn(shape, generator=draws, dtype=torch.float64)
    left, _, right = torch.linalg.svd(noise, full_matrices=False)
    values = torch.logspace(0, -decades, min(shape), dtype=torch.float64)
    return torch.mm(left * values, right)


@pytest.mark.parametrize(
    ("dtype", "decades", "error"),
    [
        (torch.float64, 3, 1e-9),
        (torch.float64, 6, 1e-4),
        (torch.float32, 2, 1e-5),
        (torch.float32, 4, 1e-3),
    ],
    ids=label,
)
@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", sorted(SINGULAR))
def test_spectra_that_decay(
    name: str, count: int, shape: tuple[int, int], dtype: torch.dtype, decades: float, error: float
) -> None:
    """Small singular values are no null ones. A direction is known to machine precision over its σ."""
    draws = torch.Generator().manual_seed(0)
    base = {"w": torch.zeros(shape, dtype=dtype)}
    experts = [{"w": spectrum(shape, decades, draws).to(dtype)} for _ in range(count)]
    (found,), (wanted,) = merge(name, base, experts), expected(name, base, experts)
    assert float((found["w"] - wanted["w"]).norm()) <= error * float(wanted["w"].norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=label)
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (6, 6)])
@pytest.mark.parametrize("case", [case for case in CASES if case[0] in SINGULAR], ids=label)
def test_null_directions_are_none(
    case: tuple[str, Parameters], shape: tuple[int, int], rank: int, dtype: torch.dtype
) -> None:
    """Experts of low rank, and a frozen one: what the decomposition returns beyond their rank is arbitrary."""
    name, parameters = case
    draws = torch.Generator().manual_seed(0)
    base = {"w": torch.zeros(shape, dtype=dtype)}

    def low_rank() -> Tensor:
        left, right = (torch.randint(-9, 9, (size, rank), generator=draws) for size in shape)
        return (left @ right.T).to(dtype)  # exact

    experts = [{"w": low_rank()}, {"w": low_rank()}, copied(base)]
    (found,), (wanted,) = merge(name, base, experts, **parameters), expected(name, base, experts, **parameters)
    error = 1e-4 if dtype == torch.float32 else 1e-7  # the root of an eigenvalue of 1e-16 is 1e-8
    assert float((found["w"] - wanted["w"]).norm()) <= error * float(wanted["w"].norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=label)
@pytest.mark.parametrize("name", sorted(SINGULAR))
def test_frozen_rows_stay_frozen(name: str, dtype: torch.dtype) -> None:
    base, experts = states(2, dtype, shapes={"w": (6, 8), "v": (8, 6)}, exact=True)
    for expert in experts:
        expert["w"][2:4], expert["v"][2:4] = base["w"][2:4], base["v"][2:4]
    (merged,) = merge(name, base, experts)
    for key in ("w", "v"):
        torch.testing.assert_close(merged[key][2:4], base[key][2:4], rtol=1e-6, atol=1e-6)
        assert not torch.equal(merged[key], base[key])


def test_iso_c_of_rank_one_shares_its_value_among_all_directions() -> None:
    left, right = torch.tensor([1.0, 2.0, -2.0]).double(), torch.tensor([0.6, 0.0, -0.8, 0.0]).double()
    base = {"w": torch.zeros(3, 4, dtype=torch.float64)}
    (merged,) = merge("iso_c", base, [{"w": torch.outer(left, right)}])
    torch.testing.assert_close(merged["w"], torch.outer(left, right) / 3, rtol=1e-7, atol=1e-9)


# --- selection -------------------------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(1, 7), max_size=4).map(tuple),
    density=st.sampled_from([0.01, 0.2, 0.35, 0.5, 0.9, 1.0]),
    drop_top=st.sampled_from([0.0, 0.1, 0.3, 0.75, 0.99]),
    granularity=st.sampled_from(["row", "tensor"]),
    seed=seeds,
)
@settings(quick, max_examples=60)
def test_breadcrumbs_keeps_the_promised_number_of_every_row(
    shape: tuple[int, ...], density: float, drop_top: float, granularity: str, seed: int
) -> None:
    base, (expert,) = states(1, shapes={"w": shape}, seed=seed, exact=True)
    (merged,) = merge(
        "breadcrumbs", base, [expert], density=density, drop_top=drop_top, granularity=granularity, scaling=1.0
    )
    rows = shape[0] if granularity == "row" and len(shape) >= 2 else 1
    before, after = ((state["w"] - base["w"]).reshape(rows, -1) for state in (expert, merged))
    length = before.shape[1]
    top = math.floor(drop_top * length)
    keep = min(max(1, round(density * length)), length - top)
    for whole, left in zip(before, after, strict=True):
        ranked = whole.abs().sort(descending=True).indices
        assert sorted(left.nonzero().flatten().tolist()) == sorted(ranked[top : top + keep].tolist())
        assert bool(((left == 0) | (left == whole)).all())


def test_consensus_keeps_what_masks_agree_on_strictly_above_the_threshold() -> None:
    base = {"w": torch.zeros(4, dtype=torch.float64)}
    taus = [[1.0, 1.0, 1.0, 2.0], [1.0, 2.0, -1.0, 0.0], [1.0, 0.0, 0.5, 0.0]]
    experts = [{"w": torch.tensor(tau, dtype=torch.float64)} for tau in taus]
    # |τ| against half of |the others|: 1 > 1 fails; (1, 2, 0) > (1, .5, 1.5); (1, 1, .5) > (.25, .75, 0)
    for agreement, wanted in ((1, [0, 3, 0.5, 2]), (2, [0, 0, 0.5, 0]), (3, [0, 0, 0.5, 0])):
        (merged,) = merge("consensus", base, experts, threshold=0.5, agreement=agreement, scaling=1.0)
        assert merged["w"].tolist() == wanted


def test_pcb_without_spread_adds_nothing() -> None:
    """Where all scores are the same, none stands out."""
    base = {"w": torch.zeros(6, dtype=torch.float64)}
    (merged,) = merge("pcb", base, [{"w": torch.ones(6, dtype=torch.float64)}] * 2)
    assert_same([merged], [base])


@pytest.mark.parametrize("signs", [(1, -1), (1, 1, -1), (1, 1, -1, -1), (1, -1, 1, -1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=label)
def test_model_stock_of_scalars(signs: tuple[int, ...], dtype: torch.dtype) -> None:
    """Cosines are ±1; where their mean is -1/(T - 1) the ratio has no value and the base stays."""
    count = len(signs)
    base = {"w": torch.tensor(3.0, dtype=dtype)}
    experts = [{"w": base["w"] + 0.25 * sign * (1 + place)} for place, sign in enumerate(signs)]
    c = (sum(signs) ** 2 - count) / (count * (count - 1))
    ratio = count * c / (1 + (count - 1) * c) if sum(signs) else 0.0
    mean = sum(0.25 * sign * (1 + place) for place, sign in enumerate(signs)) / count
    (merged,) = merge("model_stock", base, experts)
    assert float(merged["w"]) == pytest.approx(3.0 + ratio * mean, rel=1e-5)


# --- EMR -------------------------------------------------------------------------------------------------


def test_emr_gives_every_task_its_own_length_and_no_sign_of_others() -> None:
    base, experts = states(3)
    for expert, merged in zip(experts, merge("emr", base, experts), strict=True):
        names = set(floats(base)) - set(STATISTICS)
        taus, found = ({name: state[name] - base[name] for name in names} for state in (expert, merged))
        assert all(bool((taus[name] * found[name] >= 0).all()) for name in names)
        lengths = [sum(float(vector[name].abs().sum()) for name in names) for vector in (taus, found)]
        assert lengths[1] == pytest.approx(lengths[0], rel=1e-12)


@pytest.mark.parametrize("rescale", ["sum", "tensor_mean"])
def test_emr_of_encoders(rescale: str) -> None:
    base, experts = tiny_encoder(), {"digits": tiny_encoder(1), "letters": tiny_encoder(2)}
    method = merging.create("emr", rescale=rescale)
    merged = method.merge(base, experts)
    wanted = expected("emr", base.state(), [one.state() for one in experts.values()], rescale=rescale)
    found = [merged.encoder_for(task).state() for task in experts]
    assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    features = base.with_state(wanted[1])(images)
    torch.testing.assert_close(merged.encoder_for("letters")(images), features, rtol=1e-5, atol=1e-5)
    restored = method.restore(base, copied(merged.parts))
    assert_same([restored.encoder_for(task).state() for task in experts], found)
    with pytest.raises(UserError):
        merged.encoder_for("cars")
    with pytest.raises(UserError):
        _ = merged.encoder


def test_emr_of_an_expert_that_is_always_outvoted_is_the_base() -> None:
    base = {"w": torch.zeros(4, dtype=torch.float64)}
    taus = [torch.tensor([1.0, -2.0, 3.0, 1.0]).double(), -torch.tensor([0.5, -1.0, 0.5, 0.25]).double()]
    merged = merge("emr", base, [{"w": tau} for tau in taus])
    assert_close(merged, [{"w": taus[0]}, base], rtol=1e-12, atol=0.0)


def test_emr_is_no_function_of_state_dicts_alone() -> None:
    base, experts = states(2)
    with pytest.raises(UserError, match="emr"):
        merging.merge_state_dicts("emr", base, experts)


# --- tensors that need care ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=label)
@pytest.mark.parametrize("case", VARIANTS, ids=label)
def test_frozen_tensors(case: tuple[str, Parameters], dtype: torch.dtype) -> None:
    name, parameters = case
    base, experts = states(usual_count(name), dtype, exact=dtype == torch.float32)

    def freeze(who: Sequence[int], names: Sequence[str]) -> list[State]:
        return [
            expert | {key: base[key].clone() for key in names} if place in who else expert
            for place, expert in enumerate(experts)
        ]

    everyone, everything = range(len(experts)), floats(base)
    some = ("bias", "wide", "square", "conv", "one", "scale")
    for who, names in (((0,), some), ((1,), everything), (everyone, some), (everyone, everything)):
        frozen = freeze(who, names)
        merged = merge(name, base, frozen, **parameters)
        error = 2e-5 if dtype == torch.float32 else 1e-9
        assert_close(merged, expected(name, base, frozen, **parameters), rtol=error, atol=error)
        for state, key in itertools.product(merged, names if who == everyone else ()):
            torch.testing.assert_close(state[key], base[key], rtol=1e-6, atol=1e-7)
            if name not in {"weight_averaging", "slerp"} and key not in STATISTICS:
                assert torch.equal(state[key], base[key]), key


@pytest.mark.parametrize("case", VARIANTS, ids=label)
def test_empty_tensors_stay_empty(case: tuple[str, Parameters]) -> None:
    name, parameters = case
    shapes: Shapes = {"none": (0,), "rows": (0, 3), "columns": (3, 0), "w": (3, 4)}
    base, experts = states(usual_count(name), shapes=shapes)
    assert_close(
        merge(name, base, experts, **parameters),
        expected(name, base, experts, **parameters),
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("alone", [False, True], ids=["several", "one-expert"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=label)
@pytest.mark.parametrize("case", VARIANTS, ids=label)
def test_inputs_are_left_alone_and_nothing_is_shared(
    case: tuple[str, Parameters], dtype: torch.dtype, alone: bool
) -> None:
    name, parameters = case
    base, experts = states(1 if alone and name != "slerp" else usual_count(name), dtype)
    before = [copied(state) for state in (base, *experts)]
    merged = merge(name, base, experts, **parameters)
    for state in merged:
        for value in state.values():
            value.zero_()
    assert_same([base, *experts], before)
    if len(merged) > 1:  # an encoder of one task must not change with that of another
        merged[0]["square"].fill_(1.0)
        assert not merged[1]["square"].any()


@pytest.mark.parametrize("name", [name for name in DATA_FREE if name != "emr"])
def test_gradients_are_neither_needed_nor_switched(name: str) -> None:
    base, experts = states(usual_count(name), torch.float32)
    for state in (base, *experts):
        for key in floats(state):
            state[key].requires_grad_(True)
    merged = merging.merge_state_dicts(name, base, experts)
    assert torch.is_grad_enabled()
    assert not any(value.requires_grad for value in merged.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=label)
@pytest.mark.parametrize("case", VARIANTS, ids=label)
def test_half_precision_is_float32_rounded_once(case: tuple[str, Parameters], dtype: torch.dtype) -> None:
    name, parameters = case
    base, experts = states(usual_count(name), dtype)
    wide = [
        {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        for state in (base, *experts)
    ]
    wanted = merge(name, wide[0], wide[1:], **parameters)
    rounded = [{key: value.to(base[key].dtype) for key, value in state.items()} for state in wanted]
    assert_same(merge(name, base, experts, **parameters), rounded)


@pytest.mark.parametrize("case", VARIANTS, ids=label)
def test_tied_tensors_count_once(case: tuple[str, Parameters]) -> None:
    """As if the second name were not there: it must not vote twice on a threshold that is global."""
    name, parameters = case
    plain = states(usual_count(name))
    tied = [state | {"head.square": state["square"], "zz.bias": state["bias"]} for state in (plain[0], *plain[1])]
    one, two = merge(name, *plain, **parameters), merge(name, tied[0], tied[1:], **parameters)
    assert_same(two, [state | {"head.square": state["square"], "zz.bias": state["bias"]} for state in one])


@pytest.mark.parametrize("case", VARIANTS, ids=label)
def test_overlapping_views_are_tensors_of_their_own(case: tuple[str, Parameters]) -> None:
    name, parameters = case
    base, experts = states(usual_count(name))
    views = [
        state | {"part": state["square"][:3], "row": state["square"][0], "turned": state["square"].T}
        for state in (base, *experts)
    ]
    before = [copied(state) for state in views]
    merged = merge(name, views[0], views[1:], **parameters)
    assert_same(views, before)
    apart = merge(name, before[0], before[1:], **parameters)
    assert_close(merged, apart, rtol=1e-9, atol=1e-11)
    for state in merged:
        state["square"].fill_(7.0)
        assert not (state["part"] == 7).any()
        assert not (state["row"] == 7).any()


@pytest.mark.parametrize("case", VARIANTS, ids=label)
def test_memory_layout_does_not_matter(case: tuple[str, Parameters]) -> None:
    name, parameters = case
    base, experts = states(usual_count(name))
    base["wide"] = base["wide"][:1].expand(4, 9)
    base["bias"] = base["bias"][:1].expand(7)

    def turned(value: Tensor) -> Tensor:
        axes = tuple(reversed(range(value.ndim)))
        return value.permute(axes).contiguous().permute(axes)

    def strided(state: State) -> State:
        gaps = {"bias": torch.stack([state["bias"], state["bias"]], dim=1)[:, 0]}
        return {key: turned(value) for key, value in state.items()} | gaps

    views = [{"wide": base["wide"], "bias": base["bias"]}, *({} for _ in experts)]
    odd = [strided(state) | view for state, view in zip((base, *experts), views, strict=True)]
    plain = [{key: value.contiguous() for key, value in state.items()} for state in (base, *experts)]
    assert not odd[1]["conv"].is_contiguous()
    assert_close(
        merge(name, odd[0], odd[1:], **parameters),
        merge(name, plain[0], plain[1:], **parameters),
        rtol=1e-9,
        atol=1e-11,
    )


@pytest.mark.parametrize("prefix", ["", "norm.", "stem.0.norm."])
@pytest.mark.parametrize("case", VARIANTS, ids=label)
def test_batch_norm_statistics_are_averaged(case: tuple[str, Parameters], prefix: str) -> None:
    name, parameters = case
    shapes: Shapes = {"w": (3, 3), f"{prefix}running_mean": (4,), f"{prefix}running_var": (4,)}
    base, experts = states(usual_count(name), shapes=shapes)
    for task, merged in enumerate(merge(name, base, experts, **parameters)):
        # A task that has an encoder of its own keeps its expert's statistics.
        owners = [experts[task]] if name == "emr" else experts
        for key in (f"{prefix}running_mean", f"{prefix}running_var"):
            mean = torch.stack([expert[key] for expert in owners]).mean(dim=0)
            torch.testing.assert_close(merged[key], mean, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("case", VARIANTS, ids=label)
def test_statistics_do_not_vote_and_half_a_pair_is_a_weight(case: tuple[str, Parameters]) -> None:
    name, parameters = case
    base, experts = states(usual_count(name))
    without = [{key: value for key, value in state.items() if key not in STATISTICS} for state in (base, *experts)]
    one, two = merge(name, base, experts, **parameters), merge(name, without[0], without[1:], **parameters)
    assert_same([{key: state[key] for key in without[0]} for state in one], two)

    alone = [
        {"b.running_mean" if key == "bias" else key: value for key, value in state.items()} for state in without
    ]
    wanted = expected(name, alone[0], alone[1:], **parameters)
    assert_close(merge(name, alone[0], alone[1:], **parameters), wanted, rtol=1e-10, atol=1e-12)


# --- mistakes --------------------------------------------------------------------------------------------


def without_wide(state: State) -> State:
    return {name: value for name, value in state.items() if name != "wide"}


def with_entry(value: float) -> Callable[[State], State]:
    def spoil(state: State) -> State:
        spoilt = copied(state)
        spoilt["wide"][1, 2] = value
        return spoilt

    return spoil


FAULTS: dict[str, Callable[[State], State]] = {
    "missing": without_wide,
    "renamed": lambda state: without_wide(state) | {"wider": state["wide"]},
    "transposed": lambda state: state | {"wide": state["wide"].T.clone()},
    "broadcastable": lambda state: state | {"wide": state["wide"][:1].clone()},
    "nan": with_entry(math.nan),
    "inf": with_entry(-math.inf),
    "half": lambda state: state | {"wide": state["wide"].half()},
    "double": lambda state: state | {"wide": state["wide"].double()},
}


def one_line(caught: pytest.ExceptionInfo[UserError], *words: str) -> None:
    message = str(caught.value)
    assert message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", DATA_FREE)
def test_experts_that_do_not_fit_are_refused(name: str, fault: str) -> None:
    base, experts = states(usual_count(name), torch.float32)
    experts[1] = FAULTS[fault](experts[1])
    with pytest.raises(UserError) as caught:
        merge(name, base, experts)
    one_line(caught, "wide", "expert '1'")


@pytest.mark.parametrize("name", DATA_FREE)
def test_more_tensors_than_the_base_are_refused(name: str) -> None:
    base, experts = states(usual_count(name), torch.float32)
    experts[1]["extra.weight"] = torch.zeros(2)
    with pytest.raises(UserError) as caught:
        merge(name, base, experts)
    one_line(caught, "extra.weight", "expert '1'")


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", DATA_FREE)
def test_a_spoilt_base_is_refused(name: str, value: float) -> None:
    base, experts = states(usual_count(name), torch.float32)
    with pytest.raises(UserError) as caught:
        merge(name, with_entry(value)(base), experts)
    one_line(caught, "wide", "base")


@pytest.mark.parametrize("name", DATA_FREE)
def test_half_precision_experts_of_a_float32_base_are_refused(name: str) -> None:
    base, _ = states(1, torch.float32)
    _, experts = states(usual_count(name), torch.float16)
    with pytest.raises(UserError) as caught:
        merge(name, base, experts)
    one_line(caught, "float16", "float32", "expert '0'")


@pytest.mark.parametrize("name", DATA_FREE)
def test_no_experts_are_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        merge(name, states(0)[0], [])
    one_line(caught, "expert")


@pytest.mark.parametrize("count", [1, 3])
def test_slerp_takes_two_experts(count: int) -> None:
    with pytest.raises(UserError) as caught:
        merge("slerp", *states(count))
    one_line(caught, "slerp", "two", str(count))


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("weight_averaging", "coefficients"), ("task_arithmetic", "scaling"), ("consensus", "threshold")],
)
@pytest.mark.parametrize("given_count", [0, 1, 2, 4])
def test_values_per_expert_must_number_the_experts(name: str, parameter: str, given_count: int) -> None:
    base, experts = states(3)
    values: Parameters = {parameter: (0.25,) * given_count}
    with pytest.raises(UserError) as caught:
        merge(name, base, experts, **values)
    one_line(caught, parameter)


def test_more_agreement_than_experts_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        merge("consensus", *states(2), agreement=3)
    one_line(caught, "agreement", "3", "2")
    with pytest.raises(UserError):
        merge("consensus", *states(1))


@pytest.mark.parametrize("name", DATA_FREE)
def test_unknown_hyper_parameters_are_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        merging.create(name, sclaing=1.0)
    one_line(caught, name, "sclaing")


WRONG: dict[str, dict[str, list[object]]] = {
    "weight_averaging": {"coefficients": ["all", (0.5, math.nan)]},
    "task_arithmetic": {"scaling": [math.nan, math.inf, "much", (0.3, math.nan)]},
    "ties": {
        "density": [-0.1, 1.1, math.nan],
        "variant": ["median"],
        "trim": ["layer"],
        "scaling": [math.inf, "much"],
    },
    "dare": {
        "drop_rate": [-0.1, 1.0, 1.5, math.nan],
        "density": [-0.1, 1.1],
        "rescale": ["l2_norm"],
        "then": ["slerp"],
        "variant": ["median"],
        "trim": ["layer"],
        "scaling": [math.nan],
    },
    "tsv_m": {"scaling": [math.nan, "much"]},
    "iso_c": {"scaling": [math.inf, "much"]},
    "iso_cts": {"scaling": [math.nan], "common": [-0.1, 1.1, math.nan]},
    "consensus": {"threshold": [-0.1, math.nan, (0.4, -0.1)], "agreement": [0, -1, 1.5], "scaling": [math.nan]},
    "pcb": {"density": [-0.1, 1.1, math.nan], "clip": [-0.1, 0.5, 0.9], "scaling": [math.nan]},
    "breadcrumbs": {
        "density": [-0.1, 1.1],
        "drop_top": [-0.1, 1.1],
        "granularity": ["layer"],
        "scaling": [math.nan],
    },
    "emr": {"rescale": ["max"]},
    "model_stock": {},
    "slerp": {"t": [-0.1, 1.1, math.nan, "half"]},
}


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        (name, parameter, value)
        for name, parameters in WRONG.items()
        for parameter, values in parameters.items()
        for value in values
    ],
)
def test_values_out_of_range_are_refused(name: str, parameter: str, value: object) -> None:
    with pytest.raises(UserError) as caught:
        merging.create(name, **{parameter: value})
    one_line(caught, name, parameter)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("weight_averaging", "coefficients", (0.5, 0.5, -1e39)),
        ("task_arithmetic", "scaling", 1e39),
        ("task_arithmetic", "scaling", (0.3, 0.3, 1e39)),
        ("ties", "scaling", -1e39),
        ("dare", "scaling", 1e39),
        ("tsv_m", "scaling", 1e39),
        ("iso_c", "scaling", 1e39),
        ("consensus", "threshold", 1e39),
        ("pcb", "scaling", 1e39),
        ("breadcrumbs", "scaling", 1e39),
    ],
)
def test_numbers_that_the_tensors_cannot_hold_are_refused(
    name: str, parameter: str, value: float | tuple[float, ...], dtype: torch.dtype
) -> None:
    base, experts = {"w": torch.zeros(2, 2, dtype=dtype)}, [{"w": torch.eye(2, dtype=dtype)}] * 3
    with pytest.raises(UserError) as caught:
        merge(name, base, experts, **{parameter: value})
    one_line(caught, parameter, "1e+39")


def test_double_precision_holds_larger_numbers() -> None:
    base, expert = {"w": torch.zeros(2, dtype=torch.float64)}, {"w": torch.ones(2, dtype=torch.float64)}
    merged = merging.merge_state_dicts("task_arithmetic", base, [expert], scaling=1e39)
    assert merged["w"].tolist() == [1e39, 1e39]
