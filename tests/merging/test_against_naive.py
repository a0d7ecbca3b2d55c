"""Data-free merging against the naive float64 transcriptions, and properties every merge must have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from mergerisk import merging
from mergerisk.errors import UserError
from tests.naive import merging as naive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Head = Callable[[Tensor], Tensor]

State = dict[str, Tensor]
SHAPES: dict[str, tuple[int, ...]] = {
    "scale": (),
    "bias": (7,),
    "linear": (5, 6),
    "conv": (3, 2, 3, 3),
    "one": (1,),
}
# Values that are multiples of 1/64: differences and sums are exact in float32, so ties are ties there too.
GRID = 64.0


def states(
    seed: int, count: int, dtype: torch.dtype, *, grid: bool, shapes: dict[str, tuple[int, ...]] | None = None
) -> tuple[State, list[State]]:
    """A base and ``count`` experts with integer and boolean buffers that differ between them."""
    generator = torch.Generator().manual_seed(seed)

    def one(spread: float, start: State | None = None) -> State:
        state: State = {}
        for name, shape in (SHAPES if shapes is None else shapes).items():
            values = torch.randn(shape, generator=generator, dtype=torch.float64) * spread
            values = torch.round(values * GRID) / GRID if grid else values
            state[name] = (values if start is None else start[name].double() + values).to(dtype)
        state["norm.num_batches_tracked"] = torch.randint(0, 1000, (), generator=generator)
        state["position_ids"] = torch.randint(0, 1000, (1, 4), generator=generator)
        state["mask"] = torch.rand(4, generator=generator) < 0.5
        return state

    base = one(1.0)
    return base, [one(0.1, base) for _ in range(count)]


def assert_states_close(actual: State, expected: State, rtol: float, atol: float) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        assert actual[name].shape == value.shape, name
        if value.is_floating_point():
            torch.testing.assert_close(
                actual[name], value, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
            )
        else:
            assert torch.equal(actual[name], value), name


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """float32: a relative 1e-6, and the same of the values' scale (about 1) where a sum cancels."""
    return {"rtol": 1e-12, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 1e-6, "atol": 1e-6}


CASES: list[tuple[str, dict[str, object], Callable[..., State]]] = [
    ("weight_averaging", {}, naive.weight_averaging),
    ("weight_averaging", {"coefficients": (0.5, 0.125, 0.375)}, naive.weight_averaging),
    ("task_arithmetic", {}, naive.task_arithmetic),
    ("task_arithmetic", {"scaling": 0.75}, naive.task_arithmetic),
    ("ties", {}, naive.ties),
    ("ties", {"variant": "sum"}, naive.ties),
    *(
        ("ties", {"variant": variant, "trim": trim, "density": density, "scaling": 0.9}, naive.ties)
        for variant in ("mean", "sum")
        for trim in ("global", "per_tensor")
        for density in (0.05, 0.2, 0.7, 1.0)
    ),
]


@pytest.mark.parametrize("grid", [False, True], ids=["normal", "with-ties"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "parameters", "reference"),
    CASES,
    ids=[f"{name}-{'-'.join(str(value) for value in parameters.values())}" for name, parameters, _ in CASES],
)
def test_matches_naive(
    name: str, parameters: dict[str, object], reference: Callable[..., State], dtype: torch.dtype, grid: bool
) -> None:
    base, experts = states(3, 3, dtype, grid=grid)
    if dtype == torch.float32 and not grid:
        # Rounding must not decide which entry is the k-th largest: use values that float32 holds exactly.
        base, experts = states(4, 3, dtype, grid=True, shapes={"linear": (11, 13), "bias": (11,)})
    merged = merging.merge_state_dicts(name, base, experts, **parameters)
    assert_states_close(merged, reference(base, experts, **parameters), **tolerance(dtype))


def test_inputs_are_left_alone_and_nothing_is_shared() -> None:
    base, experts = states(0, 2, torch.float32, grid=True)
    before = [{name: value.clone() for name, value in state.items()} for state in (base, *experts)]
    for name in ("weight_averaging", "task_arithmetic", "ties"):
        merged = merging.merge_state_dicts(name, base, experts)
        for value in merged.values():
            value.zero_()
        for state, copy in zip((base, *experts), before, strict=True):
            for key, value in copy.items():
                assert torch.equal(state[key], value), f"{name} shares or changes {key}"


def test_entries_tied_with_the_threshold_are_kept() -> None:
    base = {"w": torch.zeros(10, dtype=torch.float64)}
    expert = {"w": torch.tensor([3, -2, 2, 2, 1, 1, 0, 0, 0, 0], dtype=torch.float64)}
    merged = merging.merge_state_dicts("ties", base, [expert], density=0.2)
    assert merged["w"].tolist() == [3, -2, 2, 2, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("size", "kept"), [(1, 1), (2, 1), (7, 1), (8, 2), (11, 2), (12, 2), (13, 3), (100, 20), (104, 21)]
)
def test_number_of_entries_kept_is_rounded_and_at_least_one(size: int, kept: int) -> None:
    base = {"w": torch.zeros(size, dtype=torch.float64)}
    expert = {"w": torch.arange(1, size + 1, dtype=torch.float64)}
    for trim in ("global", "per_tensor"):
        merged = merging.merge_state_dicts("ties", base, [expert], density=0.2, trim=trim)
        assert int((merged["w"] != 0).sum()) == kept == naive.keep_count(0.2, size)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([5.0, -3.0, 2.0], 4.0),  # two of three elected signs are +, so the cancelled entry takes +4
        ([-5.0, -3.0, 2.0], -4.0),
        ([5.0, -3.0], 4.0),  # no majority: +
    ],
)
@pytest.mark.parametrize("split", [False, True], ids=["one-tensor", "two-tensors"])
def test_cancelled_entries_take_the_majority_sign(others: list[float], expected: float, split: bool) -> None:
    def state(cancelled: float) -> State:
        if split:  # the majority is taken over all parameters, not within a tensor
            values = {"a": torch.tensor([cancelled]), "b": torch.tensor(others)}
        else:
            values = {"a": torch.tensor([cancelled, *others])}
        return {name: value.double() for name, value in values.items()}

    first, second = state(4.0), state(-4.0)
    base = {name: torch.zeros_like(value) for name, value in first.items()}
    merged = merging.merge_state_dicts("ties", base, [first, second], density=1.0, variant="mean")
    assert float(merged["a"][0]) == expected
    merged = merging.merge_state_dicts("ties", base, [first, second], density=1.0, variant="sum", scaling=1.0)
    assert float(merged["a"][0]) == expected
    assert_states_close(
        merged, naive.ties(base, [first, second], density=1.0, variant="sum", scaling=1.0), rtol=0, atol=0
    )


def test_trim_global_and_per_tensor_differ() -> None:
    base, experts = states(1, 2, torch.float64, grid=False)
    for expert in experts:
        expert["bias"] = base["bias"] + 0.01 * (expert["bias"] - base["bias"])
    one = merging.merge_state_dicts("ties", base, experts, trim="global")
    two = merging.merge_state_dicts("ties", base, experts, trim="per_tensor")
    assert torch.equal(one["bias"], base["bias"])
    assert not torch.equal(two["bias"], base["bias"])


# --- properties ------------------------------------------------------------------------------------------

shapes = st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple), min_size=1, max_size=4).map(
    lambda found: {f"p{i}": shape for i, shape in enumerate(found)}
)
dtypes = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 2**31)
quick = settings(max_examples=30, deadline=None, derandomize=True)


@given(
    shapes=shapes,
    seed=seeds,
    dtype=dtypes,
    count=st.integers(1, 5),
    name=st.sampled_from(["average", "ties"]),
)
@quick
def test_copies_of_one_expert_merge_to_that_expert(
    shapes: dict[str, tuple[int, ...]], seed: int, dtype: torch.dtype, count: int, name: str
) -> None:
    base, (expert,) = states(seed, 1, dtype, grid=True, shapes=shapes)
    copies = [{key: value.clone() for key, value in expert.items()} for _ in range(count)]
    if name == "average":
        merged = merging.merge_state_dicts("weight_averaging", base, copies)
    else:
        merged = merging.merge_state_dicts("ties", base, copies, density=1.0, variant="mean", scaling=1.0)
    expected = {key: value if value.is_floating_point() else base[key] for key, value in expert.items()}
    assert_states_close(merged, expected, **tolerance(dtype))


@given(
    shapes=shapes,
    seed=seeds,
    dtype=dtypes,
    order=st.permutations(range(4)),
    case=st.sampled_from(
        [
            ("weight_averaging", {}),
            ("task_arithmetic", {}),
            ("ties", {"variant": "mean", "trim": "global", "density": 0.3}),
            ("ties", {"variant": "sum", "trim": "per_tensor", "density": 0.6}),
        ]
    ),
)
@quick
def test_order_of_experts_does_not_matter(
    shapes: dict[str, tuple[int, ...]],
    seed: int,
    dtype: torch.dtype,
    order: list[int],
    case: tuple[str, dict[str, object]],
) -> None:
    name, parameters = case
    base, experts = states(seed, 4, dtype, grid=True, shapes=shapes)
    one = merging.merge_state_dicts(name, base, experts, **parameters)
    two = merging.merge_state_dicts(name, base, [experts[i] for i in order], **parameters)
    assert_states_close(two, one, **tolerance(dtype))


@given(
    shapes=shapes,
    seed=seeds,
    count=st.integers(1, 4),
    variant=st.sampled_from(["mean", "sum"]),
    trim=st.sampled_from(["global", "per_tensor"]),
    density=st.sampled_from([0.1, 0.2, 0.35, 0.8, 1.0]),
    scaling=st.sampled_from([0.3, 1.0, 1.7]),
)
@quick
def test_ties_matches_naive_on_any_shapes(
    shapes: dict[str, tuple[int, ...]],
    seed: int,
    count: int,
    variant: str,
    trim: str,
    density: float,
    scaling: float,
) -> None:
    base, experts = states(seed, count, torch.float64, grid=True, shapes=shapes)
    sizes = [math.prod(shape) for shape in shapes.values()]
    if any(math.isclose((density * size) % 1, 0.5) for size in [*sizes, sum(sizes)]):
        return  # exactly half an entry: which way it rounds is not part of the definition
    parameters = {"variant": variant, "trim": trim, "density": density, "scaling": scaling}
    merged = merging.merge_state_dicts("ties", base, experts, **parameters)
    assert_states_close(merged, naive.ties(base, experts, **parameters), **tolerance(torch.float64))


@given(count=st.integers(1, 8), given_count=st.integers(0, 9))
@quick
def test_coefficients_must_number_the_experts(count: int, given_count: int) -> None:
    base, experts = states(0, count, torch.float64, grid=True, shapes={"w": (2, 2)})
    coefficients = (1.0 / given_count,) * given_count if given_count else ()
    if given_count == count:
        merged = merging.merge_state_dicts("weight_averaging", base, experts, coefficients=coefficients)
        assert_states_close(merged, naive.weight_averaging(base, experts), **tolerance(torch.float64))
    else:
        with pytest.raises(UserError):
            merging.merge_state_dicts("weight_averaging", base, experts, coefficients=coefficients)


def test_seven_eighths_for_eight_experts_are_refused() -> None:
    """A list in public use has 7 entries of 1/8 for 8 tasks and silently drops the last expert."""
    base, experts = states(0, 8, torch.float32, grid=True)
    with pytest.raises(UserError):
        merging.merge_state_dicts("weight_averaging", base, experts, coefficients=(0.125,) * 7)


@pytest.mark.parametrize("name", ["weight_averaging", "task_arithmetic", "ties"])
def test_states_that_do_not_fit_are_refused(name: str) -> None:
    base, experts = states(0, 2, torch.float32, grid=True)
    without = [experts[0], {key: value for key, value in experts[1].items() if key != "linear"}]
    reshaped = [experts[0], experts[1] | {"linear": experts[1]["linear"].T.clone()}]
    broadcastable = [experts[0], experts[1] | {"bias": experts[1]["bias"][:1].clone()}]
    for wrong in (without, reshaped, broadcastable, []):
        with pytest.raises(UserError):
            merging.merge_state_dicts(name, base, wrong)


# --- the naive data-driven methods, checked by themselves ------------------------------------------------


def tiny_problem() -> tuple[nn.Module, State, list[State], Sequence[Head], list[list[list[Tensor]]]]:
    """An encoder of two linear layers, two experts, two linear heads, 6 steps of 2 batches per task."""
    generator = torch.Generator().manual_seed(11)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    base = {name: random(*value.shape) for name, value in model.named_parameters()}
    experts = [{name: value + 0.5 * random(*value.shape) for name, value in base.items()} for _ in range(2)]
    weights = [random(6, 3), random(4, 3)]
    heads = [lambda features, weight=weight: features @ weight.T for weight in weights]
    steps = [[[random(5, 4) for _ in range(2)] for _ in range(2)] for _ in range(6)]
    return model, base, experts, heads, steps


def test_naive_entropy_is_the_entropy_and_survives_large_logits() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    expected = torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(naive.softmax_entropy(logits), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(naive.summed_entropy([logits, logits]), 2 * expected, rtol=1e-12, atol=0)
    assert float(naive.softmax_entropy(torch.zeros(3, 8, dtype=torch.float64))) == pytest.approx(math.log(8))
    assert float(naive.softmax_entropy(torch.tensor([[900.0, 0.0, -900.0]], dtype=torch.float64))) == 0.0


def test_naive_adamerging_follows_finite_differences_and_torch_adam() -> None:
    model, base, experts, heads, steps = tiny_problem()
    start = torch.full((2, 4), 0.3, dtype=torch.float64)
    leaf = start.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(naive.entropy_at(model, base, experts, heads, leaf, steps[0]), leaf)
    slopes = naive.entropy_slopes(model, base, experts, heads, start, steps[0])
    torch.testing.assert_close(gradient, slopes, rtol=1e-6, atol=1e-8)

    coefficients, merged = naive.adamerging(model, base, experts, heads, steps, lr=0.1)
    assert float(coefficients.min()) >= 0.0
    assert float(coefficients.max()) <= 1.0
    parameter = nn.Parameter(start.clone())
    optimiser = torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.999))
    for batches in steps:
        optimiser.zero_grad()
        naive.entropy_at(model, base, experts, heads, parameter, batches).backward()
        optimiser.step()
        with torch.no_grad():
            parameter.clamp_(0.0, 1.0)
    torch.testing.assert_close(coefficients, parameter.detach(), rtol=1e-9, atol=1e-12)
    assert_states_close(
        naive.adamerging(model, base, experts, heads, [])[1],
        naive.task_arithmetic(base, experts, 0.3),
        rtol=1e-12,
        atol=1e-12,
    )
    assert list(merged) == list(base)


def test_naive_surgery_starts_as_identity_and_learns() -> None:
    generator = torch.Generator().manual_seed(5)
    merged = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    expert = merged - 0.3 * merged.clamp(min=0.0)
    down = torch.randn(3, 6, generator=generator, dtype=torch.float64) / 6**0.5
    same_down, up = naive.train_surgery(down, [])
    assert torch.equal(naive.surgery(merged, same_down, up), merged)
    first_down, first_up = naive.train_surgery(down, [(merged, expert)])
    assert torch.equal(first_down, down)  # U = 0: no gradient reaches D in the first step
    assert float(first_up.abs().max()) == pytest.approx(1e-3, rel=1e-4)  # Adam's first step is lr per entry
    before = float((merged - expert).abs().mean())
    trained = naive.train_surgery(down, [(merged, expert)] * 200, lr=1e-2)
    assert float((naive.surgery(merged, *trained) - expert).abs().mean()) < 0.7 * before
