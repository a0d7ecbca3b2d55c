"""Naive data-free merging beyond ``naive.merging``: plain dicts of tensors, float64, loops, full decompositions.

``base`` is theta_0, ``experts`` are theta_t, ``tau_t = theta_t - theta_0``. A method here takes and gives float64
weights only, every memory once; :func:`settle` does for all of them what is no business of their equations.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tests.naive.merging import ties

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

State = dict[str, Tensor]


def same_memory(state: State) -> dict[str, str]:
    """Each floating tensor's name → the first name whose tensor is the very same piece of memory."""
    first: dict[str, str] = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            twins = [other for other in first if is_twin(state[other], tensor)]
            first[name] = twins[0] if twins else name
    return first


def is_twin(one: Tensor, other: Tensor) -> bool:
    layouts = [(tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) for tensor in (one, other)]
    return layouts[0] == layouts[1] and one.numel() > 0


def statistics(state: State) -> list[str]:
    """BatchNorm's running means and variances, both of which must be there."""
    found = []
    for name in state:
        for own, other in (("running_mean", "running_var"), ("running_var", "running_mean")):
            if (name == own or name.endswith("." + own)) and name.removesuffix(own) + other in state:
                found.append(name)
    return found


def settle(
    method: Callable[[State, list[State]], State], base: State, experts: Sequence[State], own: int | None = None
) -> State:
    """``method`` on the weights, in float64 and each memory once; the statistics' mean; the rest from the base.

    With ``own``, the statistics are those of this expert: where every task has a model of its own, so they are.
    """
    means = statistics(base)
    first = same_memory(base)
    names = [name for name, source in first.items() if name == source and name not in means]
    merged = method(
        {name: base[name].double() for name in names},
        [{name: expert[name].double() for name in names} for expert in experts],
    )
    result = {}
    for name, value in base.items():
        if name in means:
            owners = experts if own is None else [experts[own]]
            result[name] = sum_of([expert[name].double() for expert in owners]) / len(owners)
        else:
            result[name] = merged[first[name]] if name in first else value
    return {name: result[name].to(value.dtype, copy=True) for name, value in base.items()}


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Their sum, one after another."""
    total = torch.zeros_like(tensors[0])
    for tensor in tensors:
        total = total + tensor
    return total


def task_vectors(base: State, experts: Sequence[State]) -> list[State]:
    """tau_t."""
    return [{name: expert[name] - base[name] for name in base} for expert in experts]


def add(base: State, update: State, scaling: float) -> State:
    """``theta_0 + scaling update``."""
    return {name: base[name] + scaling * update[name] for name in base}


def task_arithmetic(base: State, experts: Sequence[State], scaling: float | Sequence[float] = 0.3) -> State:
    """``theta_0 + sum_t lambda_t tau_t`` (Ilharco et al. 2023, arXiv 2212.04089)."""
    scalings = [scaling] * len(experts) if isinstance(scaling, float | int) else scaling
    merged = dict(base)
    for weight, tau in zip(scalings, task_vectors(base, experts), strict=True):
        merged = add(merged, tau, weight)
    return merged


# --- DARE ------------------------------------------------------------------------------------------------


def drop(tau: Tensor, kept: Tensor, drop_rate: float, rescale: str) -> Tensor:
    """``m tau / (1 - p)`` (Yu et al. 2024, arXiv 2311.03099), or with mergekit's L1 norm."""
    entries, total, left = [], 0.0, 0.0
    for value, keep in zip(tau.flatten().tolist(), kept.flatten().tolist(), strict=True):
        entries.append(value if keep else 0.0)
        total += abs(value)
        left += abs(value) if keep else 0.0
    factor = 1 / (1 - drop_rate) if rescale == "expected" else total / left if left > 0 else 1.0
    return factor * torch.tensor(entries, dtype=torch.float64).reshape(tau.shape)


def dare(
    base: State,
    experts: Sequence[State],
    kept: Sequence[State],
    *,
    drop_rate: float = 0.5,
    rescale: str = "expected",
    then: str = "task_arithmetic",
    scaling: float | None = None,
    variant: str = "mean",
    trim: str = "global",
    density: float = 0.2,
) -> State:
    """Drop, rescale, then task arithmetic or TIES on what is left; ``kept[t]`` are expert t's masks."""
    zeros = {name: torch.zeros_like(value) for name, value in base.items()}
    dropped = [
        {name: drop(tau[name], masks[name], drop_rate, rescale) for name in tau}
        for tau, masks in zip(task_vectors(base, experts), kept, strict=True)
    ]
    if then == "task_arithmetic":
        return add(base, task_arithmetic(zeros, dropped, 1.0), 0.3 if scaling is None else scaling)
    return add(base, ties(zeros, dropped, scaling, density, variant, trim), 1.0)


# --- singular vectors ------------------------------------------------------------------------------------


Triplets = list[tuple[Tensor, float, Tensor]]


def directions(matrix: Tensor, count: int, scale: float | None = None) -> Triplets:
    """The ``count`` largest singular triplets (u, sigma, v).

    Null ones, of at most 1e-7 ``scale`` (the largest sigma), have arbitrary vectors and are left out.
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=True)
    least = 1e-7 * (float(values[0]) if scale is None else scale)
    return [(left[:, i], float(values[i]), right[i]) for i in range(count) if float(values[i]) > least]


def polar(columns: Sequence[Tensor]) -> Tensor:
    """``X (X^T X)^(-1/2)`` by X = P diag(s) Q^T: ``P Q^T``, over the range: s² at least 1e-10 of the largest."""
    left, values, right = torch.linalg.svd(torch.stack(list(columns), dim=1), full_matrices=False)
    result = torch.zeros(left.shape[0], right.shape[1], dtype=torch.float64)
    for i, value in enumerate(values.tolist()):
        if value**2 >= 1e-10 * float(values[0]) ** 2:
            result = result + torch.outer(left[:, i], right[i])
    return result


def pack(triplets: Triplets, values: Sequence[float], like: Tensor) -> Tensor:
    """``polar(U) diag(values) polar(V)^T``."""
    if not triplets:
        return torch.zeros_like(like)
    left = polar([left for left, _, _ in triplets])
    right = polar([right for _, _, right in triplets])
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


def is_matrix(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and tensor.numel() > 0


def tsv_m(base: State, experts: Sequence[State], scaling: float = 1.0) -> State:
    """TSV-Merge (Gargiulo et al. 2025, arXiv 2412.00081).

    ``Delta = U_perp Sigma V_perp^T`` with U_perp the nearest orthonormal matrix to [U_1 ... U_T], r = k / T.
    """
    update = {}
    for name in base:
        taus = [tau[name] for tau in task_vectors(base, experts)]
        if is_matrix(base[name]):
            rank = max(1, min(base[name].shape) // len(experts))
            triplets = [triplet for tau in taus for triplet in directions(tau, rank)]
            update[name] = pack(triplets, [value for _, value, _ in triplets], base[name])
        else:
            update[name] = sum_of(taus) / len(taus)
    return add(base, update, scaling)


def iso_c(base: State, experts: Sequence[State], scaling: float = 1.0) -> State:
    """Iso-C (Marczak et al. 2025, arXiv 2502.04959, algorithm 1): ``Delta = mean(sigma) U V^T``."""
    update = {}
    for name in base:
        taus = [tau[name] for tau in task_vectors(base, experts)]
        if is_matrix(base[name]):
            k = min(base[name].shape)
            update[name] = torch.zeros_like(base[name])
            triplets = directions(sum_of(taus), k)
            mean = sum(value for _, value, _ in triplets) / k
            for left, _, right in triplets:
                update[name] = update[name] + mean * torch.outer(left, right)
        else:
            update[name] = sum_of(taus) / len(taus)
    return add(base, update, scaling)


def own_directions(k: int, count: int, common: float) -> int:
    """How many directions each of ``count`` tasks gets for itself; half an even number rounds down."""
    return min(round((k - math.floor(common * k)) / count), k // count)


def iso_cts(base: State, experts: Sequence[State], common: float = 0.8, scaling: float = 1.0) -> State:
    """Iso-CTS (Marczak et al. 2025, arXiv 2502.04959, algorithm 2).

    The top of the sum's directions, then each task's own from what is orthogonal to them; one mean sigma for all.
    """
    update = {}
    for name in base:
        taus = [tau[name] for tau in task_vectors(base, experts)]
        if is_matrix(base[name]):
            k = min(base[name].shape)
            own = own_directions(k, len(taus), common)
            shared = directions(sum_of(taus), k - len(taus) * own)
            triplets = []
            for tau in taus:
                residual = tau
                for left, _, _ in shared:
                    residual = residual - torch.outer(left, left @ tau)
                triplets += directions(residual, own, scale=float(torch.linalg.matrix_norm(tau, 2)))
            triplets += shared
            mean = sum(value for _, value, _ in triplets) / k
            update[name] = pack(triplets, [mean] * len(triplets), base[name])
        else:
            update[name] = sum_of(taus) / len(taus)
    return add(base, update, scaling)


# --- entry by entry --------------------------------------------------------------------------------------


def flatten(state: State) -> list[float]:
    """All parameters in a row."""
    return [value for tensor in state.values() for value in tensor.flatten().tolist()]


def unflatten(values: Sequence[float], like: State) -> State:
    """What :func:`flatten` laid in a row."""
    left = iter(values)
    return {
        name: torch.tensor(list(itertools.islice(left, tensor.numel())), dtype=torch.float64).reshape(tensor.shape)
        for name, tensor in like.items()
    }


def sign(value: float) -> int:
    return (value > 0) - (value < 0)


def consensus(
    base: State,
    experts: Sequence[State],
    threshold: float | Sequence[float] = 0.4,
    agreement: int = 2,
    scaling: float = 0.3,
) -> State:
    """Consensus task arithmetic on TALL masks (Wang et al. 2024, arXiv 2405.07813).

    ``m_t = 1{|tau_t| > lambda_t |tau_MTL - tau_t|}``, kept where at least ``agreement`` masks hold.
    """
    limits = [threshold] * len(experts) if isinstance(threshold, float | int) else threshold
    update = []
    for entries in zip(*(flatten(tau) for tau in task_vectors(base, experts)), strict=True):
        total = sum(entries)
        masks = [abs(one) > limit * abs(total - one) for one, limit in zip(entries, limits, strict=True)]
        update.append(total if sum(masks) >= agreement else 0.0)
    return add(base, unflatten(update, base), scaling)


def normalised(values: Sequence[float]) -> list[float]:
    """To [0, 1], or all 0 where nothing differs."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def pcb(
    base: State, experts: Sequence[State], density: float = 0.05, clip: float = 0.0001, scaling: float = 1.2
) -> State:
    """PCB-Merging (Du et al. 2024, arXiv 2410.02396: self × cross scores, drop, rescale)."""
    taus = [flatten(tau) for tau in task_vectors(base, experts)]
    count, size = len(taus), len(taus[0])
    totals = [sum(entries) for entries in zip(*taus, strict=True)]
    clamped, scales = [], []
    for tau in taus:
        magnitudes = sorted(abs(value) for value in tau)
        lower = int(size * clip)
        upper = max(int(size * (1 - clip)) - 1, lower)
        kept = [min(max(abs(value), magnitudes[lower]), magnitudes[upper]) for value in tau]
        score = [
            math.exp(count * share**2) * math.tanh(value * total)
            for share, value, total in zip(normalised(kept), tau, totals, strict=True)
        ]
        limit = sorted(score)[int(size * (1 - density))]
        scales.append(normalised([max(value, limit) for value in score]))
        clamped.append([sign(value) * magnitude for value, magnitude in zip(tau, kept, strict=True)])
    update = []
    for entries, weights in zip(zip(*clamped, strict=True), zip(*scales, strict=True), strict=True):
        weighted = sum(entry * weight for entry, weight in zip(entries, weights, strict=True))
        update.append(weighted / max(sum(weights), 1e-12))
    return add(base, unflatten(update, base), scaling)


def crumbs(row: Sequence[float], density: float, drop_top: float) -> list[float]:
    """A row without its largest magnitudes and without those below the ones to keep."""
    top = math.floor(drop_top * len(row))
    keep = min(max(1, round(density * len(row))), len(row) - top)
    order = sorted(range(len(row)), key=lambda index: abs(row[index]), reverse=True)
    left = set(order[top : top + keep])
    return [value if index in left else 0.0 for index, value in enumerate(row)]


def breadcrumbs(
    base: State,
    experts: Sequence[State],
    density: float = 0.2,
    drop_top: float = 0.1,
    granularity: str = "row",
    scaling: float = 0.4,
) -> State:
    """Model Breadcrumbs (Davari and Belilovsky 2024, arXiv 2312.06795)."""
    update = {}
    for name in base:
        total = torch.zeros_like(base[name])
        for tau in task_vectors(base, experts):
            entries = tau[name].flatten().tolist()
            rows = base[name].shape[0] if granularity == "row" and base[name].ndim >= 2 else 1
            length = len(entries) // max(rows, 1)
            left = [
                value
                for row in range(rows)
                for value in crumbs(entries[row * length : (row + 1) * length], density, drop_top)
            ]
            total = total + torch.tensor(left, dtype=torch.float64).reshape(total.shape)
        update[name] = total
    return add(base, update, scaling)


class Emr(NamedTuple):
    """EMR's parts: one vector for all tasks; a mask, a rescaler and the weights per task."""

    unified: State
    masks: list[State]
    rescalers: list[float]
    states: list[State]


def emr(base: State, experts: Sequence[State], rescale: str = "sum") -> Emr:
    """EMR-Merging (Huang et al. 2024, arXiv 2405.17461, algorithm 1: elect, mask, rescale).

    ``tensor_mean`` takes the mean of each tensor before it sums, as the authors' code does.
    """
    taus = task_vectors(base, experts)
    elected = []
    for entries in zip(*(flatten(tau) for tau in taus), strict=True):
        gamma = sign(sum(entries))
        elected.append(gamma * max([abs(value) for value in entries if value * gamma > 0], default=0.0))
    unified = unflatten(elected, base)
    masks, rescalers, states = [], [], []
    for tau in taus:
        mask = {name: (tau[name] * unified[name] > 0).double() for name in base}
        wanted, found = 0.0, 0.0
        for name in base:
            size = 1 if rescale == "sum" else max(base[name].numel(), 1)
            wanted += float(tau[name].abs().sum()) / size
            found += float((mask[name] * unified[name]).abs().sum()) / size
        masks.append(mask)
        rescalers.append(wanted / found if found > 0 else 1.0)
        states.append(add(base, {name: mask[name] * unified[name] for name in base}, rescalers[-1]))
    return Emr(unified, masks, rescalers, states)


# --- angles ----------------------------------------------------------------------------------------------


def cosine(one: Tensor, other: Tensor) -> float | None:
    """Of two flattened tensors; None if one is zero."""
    product = sum(a * b for a, b in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True))
    lengths = [math.sqrt(sum(value**2 for value in tensor.flatten().tolist())) for tensor in (one, other)]
    return None if 0.0 in lengths else product / (lengths[0] * lengths[1])


def model_stock(base: State, experts: Sequence[State]) -> State:
    """Model Stock (Jang et al. 2024, arXiv 2403.19522): ``r mean(theta_t) + (1 - r) theta_0``.

    ``r = T c / (1 + (T - 1) c)`` per tensor, c the mean cosine of all pairs of task vectors.
    """
    count, merged = len(experts), {}
    for name in base:
        taus = [tau[name] for tau in task_vectors(base, experts)]
        cosines = [cosine(one, other) or 0.0 for one, other in itertools.combinations(taus, 2)]
        c = sum(cosines) / len(cosines) if cosines else 1.0
        beneath = 1 + (count - 1) * c
        ratio = count * c / beneath if abs(beneath) >= 1e-6 else 0.0
        merged[name] = ratio * sum_of([expert[name] for expert in experts]) / count + (1 - ratio) * base[name]
    return merged


def slerp(base: State, experts: Sequence[State], t: float = 0.5) -> State:
    """Spherical interpolation per tensor (Shoemake 1985, section 3.3); linear where it is flat or undefined."""
    one, other = experts
    merged = {}
    for name in base:
        c = cosine(one[name], other[name])
        if c is None or abs(c) > 0.9995:
            weights = (1 - t, t)
        else:
            angle = math.acos(c)
            weights = (math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle))
        merged[name] = weights[0] * one[name] + weights[1] * other[name]
    return merged


# --- drop by rank ----------------------------------------------------------------------------------------


def drop_probabilities(tau: Tensor, drop_rate: float, window: float) -> Tensor:
    """MAGPRUNE's, row by row: from ``p + window / 2`` for the smallest magnitude to ``p - window / 2``."""
    rows = tau.shape[0] if tau.ndim >= 2 else 1
    entries = tau.flatten().tolist()
    length = len(entries) // max(rows, 1)
    found = []
    for row in range(rows if length else 0):
        own = entries[row * length : (row + 1) * length]
        order = sorted(range(length), key=lambda place, own=own: abs(own[place]))  # type: ignore[misc]
        for place in range(length):
            rank = order.index(place)
            share = rank / (length - 1) if length > 1 else 0.5
            found.append(drop_rate + window * (0.5 - share))
    return torch.tensor(found, dtype=torch.float64).reshape(tau.shape)


def della(
    base: State,
    experts: Sequence[State],
    draws: Sequence[State],
    *,
    drop_rate: float = 0.3,
    window: float = 0.14,
    rescale: str = "expected",
    elect: bool = True,
    variant: str = "mean",
    scaling: float | None = None,
) -> State:
    """DELLA (Deep et al. 2024, arXiv 2406.11617): drop what is drawn below its probability, elect, fuse."""
    zeros = {name: torch.zeros_like(value) for name, value in base.items()}
    dropped = []
    for tau, numbers in zip(task_vectors(base, experts), draws, strict=True):
        left = {}
        for name, vector in tau.items():
            chances = drop_probabilities(vector, drop_rate, window)
            kept = vector * (numbers[name] >= chances.float()).double()
            if rescale == "expected":
                left[name] = kept / (1 - chances)
            else:
                total = float(kept.abs().sum())
                left[name] = kept * (float(vector.abs().sum()) / total) if total > 0 else kept
        dropped.append(left)
    if not elect:
        return add(base, task_arithmetic(zeros, dropped, 1.0), 0.3 if scaling is None else scaling)
    usual = {"mean": 1.1, "sum": 0.3}[variant]
    return add(base, ties(zeros, dropped, usual if scaling is None else scaling, 1.0, variant, "per_tensor"), 1.0)


# --- descent ---------------------------------------------------------------------------------------------


def adam(start: Tensor, gradient: Callable[[Tensor], Tensor], steps: int, rate: float) -> Tensor:
    """Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1, as printed."""
    place, first, second = start, torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, steps + 1):
        slope = gradient(place)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        place = place - rate * (first / (1 - 0.9**step)) / (torch.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return place


def differentiated(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The gradient of a loss, by autograd."""

    def gradient(place: Tensor) -> Tensor:
        leaf = place.clone().requires_grad_(True)
        (found,) = torch.autograd.grad(loss(leaf), leaf)
        return found

    return gradient


def interference(tau: Tensor, taus: Sequence[Tensor]) -> Tensor:
    """WUDI's loss: ``sum_t ||(tau - tau_t) tau_t^T||² / ||tau_t||²``, of task matrices that are not 0."""
    total = torch.zeros((), dtype=torch.float64)
    for own in taus:
        if bool(own.any()):
            total = total + ((tau - own) @ own.T).square().sum() / own.square().sum()
    return total


def wudi(
    base: State,
    experts: Sequence[State],
    variant: str = "early_stopped",
    steps: int = 300,
    learning_rate: float = 1e-5,
    others: str = "base",
    scaling: float = 1.0,
) -> State:
    """WUDI (Cheng et al. 2025, arXiv 2503.08099), or the shortest minimiser of its loss."""
    update = {}
    for name in base:
        taus = [tau[name] for tau in task_vectors(base, experts)]
        if not is_matrix(base[name]):
            mean = sum_of(taus) / len(taus)
            update[name] = mean if others == "mean" else torch.zeros_like(mean)
        elif variant == "early_stopped":

            def loss(tau: Tensor, taus: list[Tensor] = taus) -> Tensor:
                return interference(tau, taus)

            start = sum_of(taus)
            seen = any(bool(tau.any()) for tau in taus)
            update[name] = adam(start, differentiated(loss), steps, learning_rate) if seen else start
        else:
            # Least squares, tau X = Y, from the stacked tasks themselves: no Gram matrix.
            own = [tau for tau in taus if bool(tau.any())]
            inputs = torch.cat(
                [base[name].new_zeros(base[name].shape[1], 1), *(tau.T / tau.norm() for tau in own)], 1
            )
            outputs = torch.cat(
                [base[name].new_zeros(base[name].shape[0], 1), *(tau @ tau.T / tau.norm() for tau in own)], 1
            )
            update[name] = outputs @ torch.linalg.pinv(inputs, rtol=1e-7)
    return add(base, update, scaling)


def doge_ta(
    base: State,
    experts: Sequence[State],
    scaling: float = 0.07,
    density: float = 0.3,
    subspace: int = 6,
    steps: int = 400,
    learning_rate: float = 1e-4,
    others: str = "base",
) -> State:
    """DOGE-TA (Wei et al. 2025, arXiv 2501.01230), as FusionBench's ``doge_ta`` defines lambda, Delta and masks."""
    taus = task_vectors(base, experts)
    chosen = [name for name in base if is_matrix(base[name])]
    limits = []
    for tau in taus:
        entries = sorted((abs(value) for name in chosen for value in tau[name].flatten().tolist()), reverse=True)
        limits.append(entries[max(1, round(density * len(entries))) - 1] if entries else 0.0)
    update = {}
    for name in base:
        own = [tau[name] for tau in taus]
        if name not in chosen:
            mean = sum_of(own) / len(own)
            update[name] = mean if others == "mean" else torch.zeros_like(mean)
            continue
        lambdas = [scaling / float(tau.norm()) if bool(tau.any()) else 0.0 for tau in own]
        size = min(base[name].shape)
        packed = [u for tau in own for u, _, _ in directions(tau, size // len(own))]
        outside = torch.eye(base[name].shape[0], dtype=torch.float64)
        if packed:
            left, values, _ = torch.linalg.svd(torch.stack(packed, dim=1), full_matrices=False)
            for direction, value in list(zip(left.T, values.tolist(), strict=True))[: size // subspace]:
                if value > 1.0001:
                    outside = outside - torch.outer(direction, direction)

        def loss(change: Tensor, own: list[Tensor] = own, lambdas: list[float] = lambdas) -> Tensor:
            merge = sum_of([weight * (tau + change) for weight, tau in zip(lambdas, own, strict=True)])
            gaps = [(tau * (merge - tau)).sum(dim=1) for tau in own]
            return torch.stack(gaps).square().sum()

        def gradient(change: Tensor, loss: Callable[[Tensor], Tensor] = loss, outside: Tensor = outside) -> Tensor:
            return outside @ differentiated(loss)(change)

        change = adam(torch.zeros_like(base[name]), gradient, steps, learning_rate)
        update[name] = torch.zeros_like(base[name])
        for weight, tau, limit in zip(lambdas, own, limits, strict=True):
            update[name] = update[name] + weight * (tau.abs() >= limit).double() * (tau + change)
    return add(base, update, 1.0)
