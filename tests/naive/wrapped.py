"""Naive transcriptions of methods that change what another one merges, and of those that depend on the order of experts
or on the low rank of what they changed: plain dicts of float64 tensors, full decompositions.

``base`` is theta_0, ``experts`` are theta_t, ``merged`` is what the wrapped method gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.naive.merging import ties

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

State = dict[str, Tensor]


def lines(
    base: State,
    experts: Sequence[State],
    merged: State,
    depth: Mapping[str, int],
    blocks: int,
    alpha: float | None,
    beta: float,
) -> State:
    """``depth``: tensor → its block, from 0; tensors outside of blocks are not in it."""
    if alpha is None:
        tau = {name: torch.stack([expert[name] - base[name] for expert in experts]).sum(0) for name in base}
        one = sum(float(tensor.abs().sum()) for tensor in tau.values())
        two = sum(float((merged[name] - base[name]).abs().sum()) for name in base)
        alpha = one / two / len(experts)
    scale = {name: alpha + (beta * depth[name] / (blocks - 1) if name in depth else 0.0) for name in base}
    return {name: base[name] + scale[name] * (merged[name] - base[name]) for name in base}


def svc(base: State, experts: Sequence[State], merged: State, alpha: float | None) -> State:
    alpha = 1 / len(experts) if alpha is None else alpha
    result = {}
    for name in base:
        delta = merged[name] - base[name]
        if delta.ndim == 2:
            left, values, right = torch.linalg.svd(delta, full_matrices=False)
            for r in range(len(values)):
                weights = []
                for expert in experts:
                    own, whole = left[:, r] @ (expert[name] - base[name]), left[:, r] @ delta
                    weights.append(max(alpha, float(whole @ own) / float(own @ own)))
                values[r] *= len(experts) / sum(weights)
            delta = left @ torch.diag(values) @ right
        result[name] = base[name] + delta
    return result


def opcm(base: State, experts: Sequence[State], alpha: float) -> State:
    """Experts in the order they arrive in; lambdas as they are in the paper, step by step."""

    def length(state: State) -> float:
        return float(sum((tensor**2).sum() for tensor in state.values())) ** 0.5

    taus = [{name: expert[name] - base[name] for name in base} for expert in experts]
    delta, before = taus[0], 1.0
    for t, tau in enumerate(taus[1:], start=2):
        grown = {}
        for name in base:
            own = tau[name]
            if own.ndim == 2:
                left, values, right = torch.linalg.svd(delta[name], full_matrices=True)
                block = left.T @ own @ right.T
                r, total = 0, 0.0
                for value in values:
                    total += float(value)
                    if total > alpha * float(values.sum()):
                        break
                    r += 1
                for i in range(block.shape[0]):
                    for j in range(block.shape[1]):
                        if i == j or (i < r and j < r):
                            block[i, j] = 0
                own = left @ block @ right
            grown[name] = before * delta[name] + own
        mean = sum(length(one) for one in taus[:t]) / t
        before = length(grown) / mean
        delta = {name: tensor / before for name, tensor in grown.items()}
    return {name: base[name] + delta[name] for name in base}


def knots_ties(
    base: State, experts: Sequence[State], density: float, scaling: float, variant: str = "mean"
) -> State:
    """Tensors that no expert changes take no part."""
    parts: dict[str, Tensor] = {}
    moved: list[State] = [{} for _ in experts]
    for name in base:
        taus = [expert[name] - base[name] for expert in experts]
        if all(float(tau.abs().max()) == 0 for tau in taus):
            continue
        if taus[0].ndim == 2:
            left, values, right = torch.linalg.svd(torch.cat(taus, dim=1), full_matrices=False)
            rank = int((values > 1e-7 * values[0]).sum())
            parts[name] = left[:, :rank]
            whole = torch.diag(values[:rank]) @ right[:rank]
            taus = list(whole.split(taus[0].shape[1], dim=1))
        for state, tau in zip(moved, taus, strict=True):
            state[name] = tau
    zero = {name: torch.zeros_like(tensor) for name, tensor in moved[0].items()}
    merged = ties(zero, moved, variant=variant, density=density, scaling=1.0)
    result = {name: tensor.clone() for name, tensor in base.items()}
    for name, tensor in merged.items():
        result[name] += scaling * (parts[name] @ tensor if name in parts else tensor)
    return result
