"""Changed merges: what must stay stays, what changes changes, and nothing depends on the company."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from mergerisk import merging
from mergerisk.errors import UserError
from mergerisk.merging import Placebo, ShuffledBlock, changed_experts, on_path
from mergerisk.merging.experts import states_of
from mergerisk.models import load_encoder
from tests.rounding import UNIT
from tests.tiny import tiny_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.models import Encoder


def vectors(base: Encoder, experts: object) -> dict[str, dict[str, torch.Tensor]]:
    """τ by task and tensor, in float64; of parameters."""
    start = base.state()
    return {
        task: {
            name: state[name].double() - start[name].double() for name in start if start[name].is_floating_point()
        }
        for task, state in states_of(experts).items()  # type: ignore[arg-type]
    }


@pytest.fixture
def base() -> Encoder:
    return tiny_encoder()


@pytest.fixture
def experts() -> dict[str, Encoder]:
    return {"one": tiny_encoder(1), "two": tiny_encoder(2)}


def test_a_placebo_keeps_every_tensors_length_and_no_direction(base: Encoder, experts: dict[str, Encoder]) -> None:
    real, random = vectors(base, experts), vectors(base, changed_experts(base, experts, Placebo(), seed=3))
    for task, tensors in real.items():
        for name, tensor in tensors.items():
            other = random[task][name]
            # Adding to θ0 and taking it away again rounds every entry to θ's spacing.
            spacing = 2 * UNIT * float(base.state()[name].abs().max() + other.abs().max())
            assert abs(float(other.norm() - tensor.norm())) <= spacing * tensor.numel() ** 0.5
            if tensor.numel() > 40:  # a random direction's cosine has standard deviation 1/√n
                cosine = torch.cosine_similarity(tensor.flatten(), other.flatten(), dim=0)
                assert abs(float(cosine)) < 6 / tensor.numel() ** 0.5
    # Different experts point differently.
    assert not torch.allclose(random["one"]["first.weight"], random["two"]["first.weight"], atol=1e-3)


@pytest.mark.parametrize("change", [Placebo(), ShuffledBlock(block=0)])
def test_draws_belong_to_seed_name_and_tensor(change: merging.VectorChange, tiny_vit: Path) -> None:
    base = load_encoder(str(tiny_vit))
    draws = torch.Generator().manual_seed(0)
    states = [
        {name: t + 0.1 * torch.randn(t.shape, generator=draws) for name, t in base.state().items()}
        for _ in range(2)
    ]
    experts = {name: base.with_state(state) for name, state in zip(("one", "two"), states, strict=True)}
    both = changed_experts(base, experts, change, seed=1).states
    alone = changed_experts(base, {"two": experts["two"]}, change, seed=1).states
    other = changed_experts(base, {"two": experts["two"]}, change, seed=2).states
    name = next(name for name in base.state() if name.endswith("0.output.dense.weight") or ".0." in name)
    # read twice, and in any order
    assert torch.equal(both["two"][name], alone["two"][name])
    assert torch.equal(both["two"][name], both["two"][name])
    assert not torch.equal(alone["two"][name], other["two"][name])


def test_a_shuffled_block_holds_the_same_values_in_other_places(tiny_vit: Path) -> None:
    base = load_encoder(str(tiny_vit))
    start = base.state()
    # τ of whole numbers over 1024 beside θ0 of zeros: nothing rounds, and values can be told apart.
    zero = base.with_state({name: torch.zeros_like(t) for name, t in start.items()})
    numbered = {name: torch.arange(t.numel()).view(t.shape) / 1024 for name, t in start.items()}
    expert = base.with_state(numbered)
    shuffled = changed_experts(zero, {"one": expert}, ShuffledBlock(block=1), seed=0).states["one"]
    moved = set()
    for name, tensor in numbered.items():
        assert torch.equal(shuffled[name].flatten().sort().values, tensor.flatten())
        if not torch.equal(shuffled[name], tensor):
            moved.add(name)
    assert moved == {name for name in start if ".1." in name}
    assert moved


def test_a_block_that_is_not_there_is_said(tiny_vit: Path, base: Encoder, experts: dict[str, Encoder]) -> None:
    vit = load_encoder(str(tiny_vit))
    with pytest.raises(UserError, match=r"shuffled_blocks: 2: the backbone has blocks 0 to 1"):
        changed_experts(vit, {"one": vit}, ShuffledBlock(block=2))
    with pytest.raises(UserError, match="has no list of blocks"):
        changed_experts(base, experts, ShuffledBlock(block=0))


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "tsv_m", "weight_averaging"])
def test_a_method_merges_changed_experts_like_others(
    method: str, base: Encoder, experts: dict[str, Encoder]
) -> None:
    changed = changed_experts(base, experts, Placebo(), seed=5)
    plain = {task: base.with_state(dict(state)) for task, state in changed.states.items()}
    lazily, at_once = (merging.create(method).merge(base, given) for given in (changed, plain))
    for name, tensor in lazily.encoder.state().items():
        assert torch.equal(tensor, at_once.encoder.state()[name])


def test_the_path_is_straight_and_ends_where_it_should(base: Encoder, experts: dict[str, Encoder]) -> None:
    merged = merging.create("task_arithmetic", scaling=0.4).merge(base, experts).encoder
    start, end = base.state(), merged.state()
    assert all(torch.equal(on_path(start, end, 0)[name], start[name]) for name in start)
    assert all(torch.equal(on_path(start, end, 1)[name], end[name]) for name in start)
    for at in (0.1, 0.5, 0.9, 1.3):
        # Task arithmetic's path is task arithmetic with a smaller λ.
        other = merging.create("task_arithmetic", scaling=0.4 * at).merge(base, experts).encoder.state()
        for name, tensor in on_path(start, end, at).items():
            size = float(start[name].abs().max() + end[name].abs().max())
            torch.testing.assert_close(tensor, other[name], rtol=0, atol=8 * UNIT * size)
    for at in (-0.1, 2.1, float("nan")):
        with pytest.raises(UserError, match="from 0, the base, over 1, the merge, to 2"):
            on_path(start, end, at)
    with pytest.raises(UserError, match="the merge"):
        on_path(start, dict([*end.items()][:-1]), 0.5)


def test_half_precision_is_rounded_once(base: Encoder, experts: dict[str, Encoder]) -> None:
    start = {name: t.bfloat16() if t.is_floating_point() else t for name, t in base.state().items()}
    end = {name: t.bfloat16() if t.is_floating_point() else t + 1 for name, t in experts["one"].state().items()}
    for name, tensor in on_path(start, end, 0.3).items():
        assert tensor.dtype == start[name].dtype
        if tensor.is_floating_point():
            exact = start[name].double() + 0.3 * (end[name].double() - start[name].double())
            # one rounding to bfloat16, of 8 significant bits, after float32's
            assert ((tensor.double() - exact).abs() <= exact.abs() * 2**-8 + 4 * UNIT).all()
        else:
            assert torch.equal(tensor, end[name])
