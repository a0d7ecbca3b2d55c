"""Naive merging that reads images: float64, one example at a time, plain loops.

States are plain dicts of tensors; ``theta_t`` is expert t. What a model computes comes in as a callable, so that
nothing here knows how encoders are built.

Sources: Fisher merging, Matena and Raffel 2022 (arXiv 2111.09832), equations 4 to 6; RegMean, Jin et al. 2023
(arXiv 2212.09849), equation 2 and section 3.3; ESM, Li et al. 2026 (arXiv 2602.20208); AdaMerging++, Yang et al. 2024 (arXiv 2310.02575), after TIES,
Yadav et al. 2023 (arXiv 2306.01708).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.naive.merging import trimmed_task_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

State = dict[str, Tensor]


# --- Fisher ----------------------------------------------------------------------------------------------


def log_probability(logits: Tensor, label: int) -> Tensor:
    """``z[y] - logsumexp(z)`` of one row of logits."""
    largest = logits.max().detach()
    return logits[label] - largest - torch.log(torch.exp(logits - largest).sum())


def diagonal_fisher(
    classifier: Callable[[Tensor], Tensor],
    parameters: Mapping[str, Tensor],
    images: Tensor,
    labels: Sequence[int] | None = None,
) -> State:
    """``1/N sum_x sum_y p(y|x) (d log p(y|x) / d theta)^2``, the square entry by entry.

    ``classifier`` maps 1×C×H×W to 1×classes and depends on ``parameters``, leaves that require gradients. With
    ``labels``, one drawn label per image stands for the sum over classes. What no gradient reaches gets 0.
    """
    fisher = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for position, image in enumerate(images):
        classes = int(classifier(image[None]).shape[1])
        for label in range(classes) if labels is None else [labels[position]]:
            score = log_probability(classifier(image[None])[0], label)
            share = float(torch.exp(score.detach())) if labels is None else 1.0
            gradients = torch.autograd.grad(score, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    fisher[name] += share * gradient**2 / len(images)
    return fisher


def normalised(fisher: State) -> State:
    """Divided by the L2 norm over all entries of all tensors, unless that is 0."""
    norm = sum(float((value**2).sum()) for value in fisher.values()) ** 0.5
    return {name: value / norm if norm > 0 else value for name, value in fisher.items()}


def floored(fisher: State, floor: float, flooring: str) -> State:
    """What one expert's parameters are weighted with: its Fisher information divided by its norm (unless that is 0),
    and either raised to the floor afterwards, or before, or with the floor added to both."""
    norm = sum(float((value**2).sum()) for value in fisher.values()) ** 0.5
    if flooring == "added":
        return {name: (value + floor) / (norm + floor) for name, value in fisher.items()}
    if flooring == "raw":
        raised = {name: torch.where(v < floor, floor, v) for name, v in fisher.items()}
        return {name: v / norm if norm > 0 else v for name, v in raised.items()}
    assert flooring == "normalised"
    return {name: torch.where(v < floor, floor, v) for name, v in normalised(fisher).items()}


def fisher(
    fishers: Sequence[State], experts: Sequence[State], floor: float = 1e-6, flooring: str = "normalised"
) -> State:
    """``sum_t w_t theta_t / sum_t w_t`` with :func:`floored` Fisher information as w_t."""
    weights = [floored(own, floor, flooring) for own in fishers]
    merged = {}
    for name in weights[0]:
        above = torch.zeros_like(experts[0][name])
        below = torch.zeros_like(experts[0][name])
        for weight, expert in zip(weights, experts, strict=True):
            above = above + weight[name] * expert[name]
            below = below + weight[name]
        merged[name] = above / below
    return merged


# --- RegMean ---------------------------------------------------------------------------------------------


def gram(rows: Tensor, non_diagonal: float) -> Tensor:
    """``X^T X / N`` of N×in rows, its off-diagonal entries times ``non_diagonal``."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for row in rows:
        total = total + torch.outer(row, row) / len(rows)
    places = range(rows.shape[1])
    factors = [[1.0 if i == j else non_diagonal for j in places] for i in places]
    return total * torch.tensor(factors, dtype=torch.float64)


def regmean(inputs: Sequence[Tensor], weights: Sequence[Tensor], non_diagonal: float = 0.95) -> Tensor:
    """The out×in weight W with ``(sum_t G_t) W^T = sum_t G_t W_t^T``, for inputs N_t×in that leave no room.

    An input that is 0 in every row of every expert takes no part in the equations; it gets the mean of its
    weights, as what is not seen does.
    """
    alive = [i for i in range(weights[0].shape[1]) if any(bool((rows[:, i] != 0).any()) for rows in inputs)]
    left = torch.zeros(len(alive), len(alive), dtype=torch.float64)
    right = torch.zeros(len(alive), weights[0].shape[0], dtype=torch.float64)
    for rows, weight in zip(inputs, weights, strict=True):
        own = gram(rows[:, alive], non_diagonal)
        left = left + own
        right = right + own @ weight[:, alive].T
    merged = mean(weights)
    merged[:, alive] = torch.linalg.solve(left, right).T
    return merged


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """What a tensor that is no linear layer's weight becomes."""
    total = torch.zeros_like(tensors[0])
    for tensor in tensors:
        total = total + tensor
    return total / len(tensors)


def regression_error(inputs: Sequence[Tensor], weights: Sequence[Tensor], merged: Tensor) -> float:
    """``sum_t ||X_t W_t^T - X_t W^T||^2 / N_t``: what RegMean minimises for ``non_diagonal = 1``."""
    total = 0.0
    for rows, weight in zip(inputs, weights, strict=True):
        for row in rows:
            total += float(((weight @ row - merged @ row) ** 2).sum()) / len(rows)
    return total


def least_squares(inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The minimiser of :func:`regression_error`, from the stacked rows themselves: no Gram matrix."""
    rows = torch.cat([own / len(own) ** 0.5 for own in inputs])
    outputs = torch.cat([own @ weight.T / len(own) ** 0.5 for own, weight in zip(inputs, weights, strict=True)])
    solution: Tensor = torch.linalg.lstsq(rows, outputs).solution
    return solution.T


# --- ESM -------------------------------------------------------------------------------------------------


def essential(rows: Tensor, tau: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``rank`` largest principal directions (columns) of what ``tau`` changes about a layer's outputs, tau's
    coordinates in them, and their eigenvalues; none that is 1e-7 of the largest singular value."""
    _, values, right = torch.linalg.svd(rows @ tau.T, full_matrices=False)
    kept = [i for i, value in enumerate(values.tolist()) if i < rank and value > 1e-7 * float(values[0])]
    return right[kept].T, right[kept] @ tau, values[kept] ** 2 / len(rows)


def flat(matrix: Tensor) -> Tensor:
    """``U V^T mean(s)`` of ``U diag(s) V^T``, over the range."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    if len(values) == 0:
        return matrix
    kept = values > 1e-7 * values[0]
    return float(values.mean()) * (left[:, kept] @ right[kept])


def relative(norms: Sequence[float], power: float) -> list[float]:
    """``(norm / mean norm)^power``."""
    middle = sum(norms) / len(norms)
    return [(norm / middle) ** power if middle > 0 else 1.0 for norm in norms]


def esm_layer(
    inputs: Sequence[Tensor], taus: Sequence[Tensor], polarisation: float = 2.0, weighting: float = 0.0
) -> Tensor:
    """The merged task matrix of one linear layer (Li et al. 2026, arXiv 2602.20208), before layers are compared."""
    rank = max(1, taus[0].shape[0] // len(taus))
    parts = [essential(rows, tau, rank) for rows, tau in zip(inputs, taus, strict=True)]
    strengths = relative([float(coordinates.square().sum()) ** 0.5 for _, coordinates, _ in parts], polarisation)
    bases, rows = [], []
    for (basis, coordinates, values), strength in zip(parts, strengths, strict=True):
        weights = [(float(value) / float(values.mean())) ** weighting for value in values]
        for place, weight in enumerate(weights):
            share = weight * len(weights) / sum(weights)
            bases.append(share * basis[:, place])
            rows.append(share * strength * coordinates[place])
    if not bases:
        return torch.zeros_like(taus[0])
    table = torch.stack(rows)
    columns = relative([float(column.square().sum()) ** 0.5 for column in table.T], polarisation)
    return flat(torch.stack(bases, dim=1)) @ flat(table * torch.tensor(columns, dtype=torch.float64))


# --- AdaMerging++ ----------------------------------------------------------------------------------------


def elected_task_vectors(base: State, experts: Sequence[State], density: float = 0.2) -> list[State]:
    """Task vectors trimmed over all their entries together, without the entries that lost the election.

    The elected sign of an entry is that of the trimmed vectors' sum; a zero sum takes the sign that most
    entries elected, + if they balance.
    """
    trimmed = trimmed_task_vectors(base, experts, density, "global")
    columns = {name: [tau[name].flatten().tolist() for tau in trimmed] for name in trimmed[0]}
    elected = {
        name: [(total > 0) - (total < 0) for total in map(sum, zip(*rows, strict=True))]
        for name, rows in columns.items()
    }
    majority = 1 if sum(sum(signs) for signs in elected.values()) >= 0 else -1
    vectors: list[State] = [{} for _ in experts]
    for name, rows in columns.items():
        for vector, row in zip(vectors, rows, strict=True):
            kept = [
                entry if entry * (sign or majority) > 0 else 0.0
                for entry, sign in zip(row, elected[name], strict=True)
            ]
            vector[name] = torch.tensor(kept, dtype=torch.float64).reshape(base[name].shape)
    return vectors
