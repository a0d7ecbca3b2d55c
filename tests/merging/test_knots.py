"""KnOTS against a float64 transcription, and what a shared basis promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mergerisk import merging
from tests.merging.test_wrapped import assert_close
from tests.naive import wrapped as naive

State = dict[str, Tensor]
LORA = {"layer.0.q.weight": (8, 6), "layer.0.v.weight": (5, 9), "layer.1.q.weight": (8, 6)}
FROZEN = {"embeddings.weight": (30, 4), "head.weight": (20, 8), "norm.bias": (7,)}


def states(
    count: int, rank: int = 2, trained: dict[str, tuple[int, ...]] | None = None
) -> tuple[State, list[State]]:
    """A base, and experts that changed some matrices by a low rank and ``trained`` tensors as a whole."""
    draws = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    base = {name: draw(*shape) for name, shape in (LORA | FROZEN | (trained or {})).items()}
    experts = []
    for _ in range(count):
        tuned = {name: base[name] + 0.1 * draw(m, rank) @ draw(rank, n) for name, (m, n) in LORA.items()}
        tuned |= {name: base[name] + 0.1 * draw(*shape) for name, shape in (trained or {}).items()}
        experts.append({name: tensor.clone() for name, tensor in base.items()} | tuned)
    return base, experts


@pytest.mark.parametrize("given", [{}, {"density": 1.0, "scaling": 0.7}, {"density": 0.5, "variant": "sum"}])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_knots_is_the_transcription(given: dict[str, Any], rank: int) -> None:
    base, experts = states(3, rank, {"layer.0.q.bias": (8,)})
    wanted = naive.knots_ties(base, experts, **{"density": 0.2, "scaling": 0.6} | given)
    assert_close(merging.merge_state_dicts("knots_ties", base, experts, **given), wanted, rtol=1e-7)


def test_what_lora_leaves_alone_has_no_part_in_the_trim() -> None:
    base, experts = states(3)
    merged = merging.merge_state_dicts("knots_ties", base, experts)
    few = [{name: state[name] for name in LORA} for state in (base, *experts)]
    alone = merging.merge_state_dicts("knots_ties", few[0], few[1:])
    assert all(torch.equal(merged[name], alone[name]) for name in LORA)
    assert all(torch.equal(merged[name], base[name]) for name in FROZEN)


def test_one_expert_untrimmed_is_itself() -> None:
    base, (expert,) = states(1)
    assert_close(merging.merge_state_dicts("knots_ties", base, [expert], density=1.0, scaling=1.0), expert)


def test_turning_what_layers_put_out_turns_the_merge_with_it() -> None:
    """TIES alone depends on the axes that weights are written in; in a basis of the experts' own it does not."""
    base, experts = states(3)
    draws = torch.Generator().manual_seed(1)
    turns = {
        name: torch.linalg.qr(torch.randn(m, m, generator=draws, dtype=torch.float64))[0]
        for name, (m, _) in LORA.items()
    }

    def turned(state: State) -> State:
        return {n: base[n] + turns[n] @ (t - base[n]) if n in turns else t for n, t in state.items()}

    for name, same in (("knots_ties", True), ("ties", False)):
        first = turned(merging.merge_state_dicts(name, base, experts))
        second = merging.merge_state_dicts(name, base, [turned(expert) for expert in experts])
        assert all(torch.allclose(first[n], second[n], rtol=1e-9, atol=1e-9) for n in LORA) == same


def test_dare_drops_the_share_that_it_is_given_and_keeps_the_mean() -> None:
    base, experts = states(2, 4)
    given = {"density": 1.0, "scaling": 1.0, "variant": "sum"}
    whole = merging.merge_state_dicts("knots_ties", base, experts[:1], **given)
    merged = [
        merging.merge_state_dicts("knots_ties", base, experts[:1], seed=seed, drop_rate=0.4, **given)
        for seed in range(400)
    ]
    for name in LORA:
        kept = torch.stack([state[name] - base[name] for state in merged])
        size = float((whole[name] - base[name]).norm())
        # Of 400 draws the mean is off by √(p/(1−p)/400) = 0.041 of the whole's length, in the mean.
        assert float((kept.mean(dim=0) - (whole[name] - base[name])).norm()) < 0.08 * size
        assert not torch.equal(kept[0], kept[1])
