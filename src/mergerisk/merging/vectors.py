"""Task vectors τ = θt − θ0, piece by piece: what methods that look at all parameters at once read."""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING

import torch

from mergerisk.memory import new_tensor
from mergerisk.merging.selection import kth_largest
from mergerisk.models.on_disk.checkpoints import pieces_of, tensor_specs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors

PIECE = 2**17
"""Entries of a task vector at a time: few enough that what is done with them stays in a core's caches."""


def new_memory(like: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor for a result, not initialised; see :func:`mergerisk.memory.new_tensor`."""
    if like.device.type != "cpu":
        return torch.empty_like(like, memory_format=torch.contiguous_format)
    return new_tensor(like.shape, like.dtype)


def together(states: Sequence[Tensors], name: str, stride: int = 1) -> Iterator[tuple[torch.Tensor, ...]]:
    """One tensor of every state, flattened, in pieces that fit a core's cache; with ``stride``, every stride-th
    entry."""
    start = 0
    for pieces in zip(*(pieces_of(tensors, name, PIECE) for tensors in states), strict=True):
        yield tuple(piece[-start % stride :: stride] for piece in pieces) if stride > 1 else pieces
        start += len(pieces[0])


def magnitudes(base: Tensors, expert: Tensors, names: list[str], stride: int = 1) -> Iterator[torch.Tensor]:
    """|τ| of the named tensors as 1-D tensors of one dtype; with ``stride``, about every stride-th entry."""
    dtype = common_dtype(base)
    buffer = torch.empty(0)
    for name in names:
        for b, a in together((base, expert), name, stride):
            if a.shape != buffer.shape or a.device != buffer.device or a.dtype != buffer.dtype:
                buffer = torch.empty_like(a, memory_format=torch.contiguous_format)
            yield torch.sub(a, b, out=buffer).abs_().to(dtype)


def magnitude_threshold(base: Tensors, expert: Tensors, names: list[str], density: float) -> float:
    """The magnitude of the smallest entry of τ among its largest ``density`` · count (rounded, at least one); 0
    if all entries are among them."""
    specs = tensor_specs(base)
    count = sum(math.prod(specs[name].shape) for name in names)
    if count == 0:
        return 0.0
    kept = max(1, round(density * count))
    if kept == count:
        return 0.0
    return kth_largest(lambda stride: magnitudes(base, expert, names, stride), count, kept)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """What tensors of a dtype are merged in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def common_dtype(base: Tensors) -> torch.dtype:
    """The dtype that holds every tensor of a state exactly."""
    return reduce(torch.promote_types, (spec.dtype for spec in tensor_specs(base).values()), torch.float32)


def mean_vector(pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the experts' task vectors, in new memory."""
    return sum_vector(pretrained, experts).div_(len(experts))


def sum_vector(pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of the experts' task vectors, in new memory."""
    total = experts[0] - pretrained
    for expert in experts[1:]:
        total.add_(expert - pretrained)
    return total
