"""Naive model merging: plain dicts of tensors, float64, transcribed from the equations.

``base`` is theta_0, ``experts`` are theta_t with the same keys and shapes, ``tau_t = theta_t - theta_0``.
Every result has the base's dtypes; tensors that are not floating point (counters, masks) are copies of the
base's.

Sources: task arithmetic, Ilharco et al. 2023 (arXiv 2212.04089); TIES, Yadav et al. 2023 (2306.01708);
AdaMerging, Yang et al. 2024 (2310.02575); Surgery, Yang et al. 2024 (2402.02705).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

State = dict[str, Tensor]


def float_names(base: State) -> list[str]:
    """Names of the tensors that are merged."""
    return [name for name, value in base.items() if value.is_floating_point()]


def finish(base: State, merged: State) -> State:
    """The merged float tensors in the base's dtypes and order, the rest copied from the base."""
    return {name: (merged.get(name, value)).to(value.dtype, copy=True) for name, value in base.items()}


def weight_averaging(base: State, experts: Sequence[State], coefficients: Sequence[float] | None = None) -> State:
    """``sum_t c_t theta_t``, c_t = 1/T unless given."""
    count = len(experts)
    shares = [1.0 / count] * count if coefficients is None else list(coefficients)
    if len(shares) != count:
        raise ValueError("one coefficient per expert")
    merged = {}
    for name in float_names(base):
        total = torch.zeros_like(base[name], dtype=torch.float64)
        for share, expert in zip(shares, experts, strict=True):
            total = total + share * expert[name].double()
        merged[name] = total
    return finish(base, merged)


def task_arithmetic(base: State, experts: Sequence[State], scaling: float = 0.3) -> State:
    """``theta_0 + lambda sum_t tau_t``."""
    merged = {}
    for name in float_names(base):
        start = base[name].double()
        total = torch.zeros_like(start)
        for expert in experts:
            total = total + (expert[name].double() - start)
        merged[name] = start + scaling * total
    return finish(base, merged)


def keep_count(density: float, size: int) -> int:
    """How many entries the trim keeps, ties with the last of them aside."""
    return max(1, round(density * size))


def threshold(magnitudes: list[float], density: float) -> float:
    """The k-th largest magnitude; 0 of none."""
    if not magnitudes:
        return 0.0
    return sorted(magnitudes, reverse=True)[keep_count(density, len(magnitudes)) - 1]


def trimmed_task_vectors(base: State, experts: Sequence[State], density: float, trim: str) -> list[State]:
    """Each task vector with everything below its threshold set to 0; entries tied with the threshold stay."""
    trimmed = []
    for expert in experts:
        tau = {name: expert[name].double() - base[name].double() for name in float_names(base)}
        if trim == "global":
            everything = [value for name in tau for value in tau[name].abs().flatten().tolist()]
            limits = dict.fromkeys(tau, threshold(everything, density))
        elif trim == "per_tensor":
            limits = {name: threshold(tau[name].abs().flatten().tolist(), density) for name in tau}
        else:
            raise ValueError(trim)
        trimmed.append(
            {name: torch.where(tau[name].abs() >= limits[name], tau[name], 0.0) for name in tau},
        )
    return trimmed


def ties(
    base: State,
    experts: Sequence[State],
    scaling: float | None = None,
    density: float = 0.2,
    variant: str = "mean",
    trim: str = "global",
) -> State:
    """Trim, elect signs, combine what agrees, scale (lambda = 1 for ``mean``, 0.3 for ``sum``)."""
    if scaling is None:
        scaling = {"mean": 1.0, "sum": 0.3}[variant]
    trimmed = trimmed_task_vectors(base, experts, density, trim)

    elected: dict[str, list[int]] = {}
    for name in float_names(base):
        columns = [tau[name].flatten().tolist() for tau in trimmed]
        sums = [sum(entries) for entries in zip(*columns, strict=True)]
        elected[name] = [(value > 0) - (value < 0) for value in sums]
    majority = 1 if sum(itertools.chain.from_iterable(elected.values())) >= 0 else -1

    merged = {}
    for name in float_names(base):
        columns = [tau[name].flatten().tolist() for tau in trimmed]
        combined = []
        for sign, entries in zip(elected[name], zip(*columns, strict=True), strict=True):
            agreeing = [entry for entry in entries if entry * (sign or majority) > 0]
            if variant == "sum":
                combined.append(sum(agreeing))
            else:
                combined.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
        update = torch.tensor(combined, dtype=torch.float64).reshape(base[name].shape)
        merged[name] = base[name].double() + scaling * update
    return finish(base, merged)


# --- AdaMerging ------------------------------------------------------------------------------------------


def softmax_entropy(logits: Tensor) -> Tensor:
    """Mean over rows of ``-sum_c p_c log p_c`` with the logarithm taken as ``z_c - logsumexp(z)``."""
    total = logits.new_zeros(())
    for row in logits:
        largest = row.max().detach()
        log_probabilities = row - largest - torch.log(torch.exp(row - largest).sum())
        total = total - (torch.exp(log_probabilities) * log_probabilities).sum()
    return total / len(logits)


def summed_entropy(logits_per_task: Sequence[Tensor]) -> Tensor:
    """Sum over tasks of the mean entropy."""
    return torch.stack([softmax_entropy(logits) for logits in logits_per_task]).sum()


def layer_wise_parameters(base: State, experts: Sequence[State], coefficients: Tensor, names: list[str]) -> State:
    """``theta_0 + sum_t lambda(t, l) tau(t, l)``; ``coefficients`` is tasks × names."""
    merged = {}
    for layer, name in enumerate(names):
        value = base[name]
        for task, expert in enumerate(experts):
            value = value + coefficients[task, layer] * (expert[name] - base[name])
        merged[name] = value
    return merged


def entropy_at(
    model: nn.Module,
    base: State,
    experts: Sequence[State],
    heads: Sequence[Callable[[Tensor], Tensor]],
    coefficients: Tensor,
    batches: Sequence[Sequence[Tensor]],
) -> Tensor:
    """What one AdaMerging step minimises: each batch's mean entropy, summed over tasks and their batches.

    ``batches[task]`` lists that task's batches of this step. (The mean over a task's batches differs by a
    constant factor, which Adam undoes up to its epsilon of 1e-8.)
    """
    names = [name for name, _ in model.named_parameters()]
    state = layer_wise_parameters(base, experts, coefficients, names)
    total = coefficients.new_zeros(())
    for head, own in zip(heads, batches, strict=True):
        for batch in own:
            total = total + softmax_entropy(head(torch.func.functional_call(model, state, (batch,))))
    return total


def entropy_slopes(
    model: nn.Module,
    base: State,
    experts: Sequence[State],
    heads: Sequence[Callable[[Tensor], Tensor]],
    coefficients: Tensor,
    batches: Sequence[Sequence[Tensor]],
    width: float = 1e-5,
) -> Tensor:
    """Central differences of :func:`entropy_at` by each coefficient: no autograd involved."""
    slopes = torch.zeros_like(coefficients)
    with torch.no_grad():
        for task in range(coefficients.shape[0]):
            for layer in range(coefficients.shape[1]):
                shift = torch.zeros_like(coefficients)
                shift[task, layer] = width
                above = entropy_at(model, base, experts, heads, coefficients + shift, batches)
                below = entropy_at(model, base, experts, heads, coefficients - shift, batches)
                slopes[task, layer] = (above - below) / (2 * width)
    return slopes


class Adam:
    """Adam by its equations (Kingma and Ba 2015), one tensor, epsilon 1e-8 outside the root."""

    def __init__(self, shape: torch.Size, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.first = torch.zeros(shape, dtype=torch.float64)
        self.second = torch.zeros(shape, dtype=torch.float64)
        self.lr, self.betas, self.steps = lr, betas, 0

    def update(self, gradient: Tensor) -> Tensor:
        """What to add to the parameter."""
        self.steps += 1
        one, two = self.betas
        self.first = one * self.first + (1 - one) * gradient
        self.second = two * self.second + (1 - two) * gradient**2
        mean = self.first / (1 - one**self.steps)
        square = self.second / (1 - two**self.steps)
        return -self.lr * mean / (square.sqrt() + 1e-8)


def adamerging(
    model: nn.Module,
    base: State,
    experts: Sequence[State],
    heads: Sequence[Callable[[Tensor], Tensor]],
    steps: Sequence[Sequence[Sequence[Tensor]]],
    *,
    start: float = 0.3,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
) -> tuple[Tensor, State]:
    """Layer-wise AdaMerging on given batches.

    ``model`` lends its structure: its parameters, all float64, are those of ``base``, and their order is that
    of lambda's columns. ``heads[task]`` maps features to logits; ``steps[step][task]`` lists batches. lambda
    is clamped to [0, 1] after each step. Returns lambda (tasks × parameter tensors) and merged parameters.
    """
    names = [name for name, _ in model.named_parameters()]
    coefficients = torch.full((len(experts), len(names)), start, dtype=torch.float64)
    adam = Adam(coefficients.shape, lr, betas)
    for batches in steps:
        leaf = coefficients.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(entropy_at(model, base, experts, heads, leaf, batches), leaf)
        coefficients = (coefficients + adam.update(gradient)).clamp(0.0, 1.0)
    return coefficients, layer_wise_parameters(base, experts, coefficients, names)


# --- Surgery ---------------------------------------------------------------------------------------------


def surgery(embedding: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """``z - U ReLU(D z)`` for rows z: embedding N×d, down r×d, up d×r."""
    return torch.stack([z - up @ (down @ z).clamp(min=0.0) for z in embedding])


def authors_batches(count: int, size: int, iterations: int, draws: torch.Generator) -> list[list[int]]:
    """Which of ``count`` images the steps of one task take: every iteration shuffles them all and takes the first
    ``size``, and then the next ``size``, each for a step of its own."""
    taken = []
    for _ in range(iterations):
        order = torch.randperm(count, generator=draws).tolist()
        taken.append(order[:size])
        taken.append(order[size : 2 * size])
    return taken


def distance(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean absolute difference of all entries."""
    return (found - wanted).abs().sum() / found.numel()


def train_surgery_together(
    downs: Sequence[Tensor], iterations: Sequence[Sequence[Sequence[tuple[Tensor, Tensor]]]], *, lr: float = 1e-3
) -> list[tuple[Tensor, Tensor]]:
    """The authors' loop as PyTorch 1 runs it: one Adam holds all tasks' D and U, and gradients are emptied to zeros, on
    which it moves the adapters of other tasks whenever one takes a step, once they have had a gradient.

    ``iterations[i][task]`` lists the task's batches as in :func:`train_surgery`. Returns D and U per task.
    """
    adapters = [[down, torch.zeros(down.shape[1], down.shape[0], dtype=torch.float64)] for down in downs]
    optimizers = [[Adam(part.shape, lr) for part in pair] for pair in adapters]
    for batches in iterations:
        for task, pairs in enumerate(batches):
            for merged, expert in pairs:
                down, up = (part.clone().requires_grad_(True) for part in adapters[task])
                loss = distance(merged - (merged @ down.T).clamp(min=0.0) @ up.T, expert)
                own = torch.autograd.grad(loss, (down, up))
                for other, (parts, adams) in enumerate(zip(adapters, optimizers, strict=True)):
                    for place, adam in enumerate(adams):
                        if other == task or adam.steps > 0:
                            gradient = own[place] if other == task else torch.zeros_like(parts[place])
                            parts[place] = parts[place] + adam.update(gradient)
    return [(down, up) for down, up in adapters]


def train_surgery(
    down: Tensor,
    steps: Sequence[tuple[Tensor, Tensor]],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
) -> tuple[Tensor, Tensor]:
    """Train one task's adapter from a given D (r×d) and U = 0; returns D and U.

    ``steps`` lists pairs (merged encoder's embeddings, expert's embeddings), both N×d float64: a step's batch, whose
    loss is the mean absolute difference.
    """
    up = torch.zeros(down.shape[1], down.shape[0], dtype=torch.float64)
    adam_down, adam_up = Adam(down.shape, lr, betas), Adam(up.shape, lr, betas)
    for merged, expert in steps:
        leaf_down, leaf_up = down.clone().requires_grad_(True), up.clone().requires_grad_(True)
        loss = distance(merged - (merged @ leaf_down.T).clamp(min=0.0) @ leaf_up.T, expert)
        gradient_down, gradient_up = torch.autograd.grad(loss, (leaf_down, leaf_up))
        down = down + adam_down.update(gradient_down)
        up = up + adam_up.update(gradient_up)
    return down, up
