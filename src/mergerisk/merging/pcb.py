"""PCB-merging: entries of task vectors, balanced by competition within and between tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from mergerisk.merging.per_layer import Scaling, single
from mergerisk.merging.selection import kth_largest
from mergerisk.merging.states import StateMerging
from mergerisk.merging.vectors import common_dtype, magnitudes, new_memory, together
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors


@hyperparameters
class Pcb(StateMerging):
    """Parameter competition balancing (Du et al. 2024, arXiv 2410.02396, section 3), as the authors' code has it.

    Per task, over all d entries of its task vector τt = θt − θ0 together, with norm(x) = (x − min)/(max − min)
    (0 where max = min) and values ranked from 0, the smallest:

    1. at = |τt| clamped to its values at ranks int(d·clip) and int(d·(1 − clip)) − 1 (or the former, if larger);
    2. score_t = exp(T · norm(at)²) · tanh(τt · Σs τs): competition within the task, and with the others;
    3. scale_t = norm(max(score_t, its value at rank int(d·(1 − density)))): the lower scores are dropped.

    θ = θ0 + scaling · Σt sign(τt)·at·scale_t / max(Σt scale_t, 1e-12), entry by entry.

    The paper writes the two factors of a score as softmaxes. Two versions circulate as code: this one, the
    authors' released one, clips 0.01 % of the magnitudes at either end; another clips 1 %, and its second factor
    is a sum over tasks s of tanh(product of the normalised τt and τs).

    Attributes:
        density: share of entries whose score counts, in (0, 1].
        clip: share of magnitudes clamped at either end, in [0, 0.5).
        scaling: λ, or one per layer; the defaults of all three are those of the authors' code for vision models.
    """

    density: Annotated[float, Field(gt=0, le=1)] = 0.05
    clip: Annotated[float, Field(ge=0, lt=0.5)] = 0.0001
    scaling: Scaling = 1.2

    def combine(
        self,
        base: Tensors,
        experts: Sequence[Tensors],
        *,
        seed: int = 0,  # noqa: ARG002  # nothing is random
    ) -> Iterator[tuple[str, torch.Tensor]]:
        size = sum(math.prod(tensor.shape) for tensor in base.values())
        clamps = [self._clamp(base, expert, size) for expert in experts]
        cuts = [self._cut(base, experts, position, clamp, size) for position, clamp in enumerate(clamps)]
        for name, pretrained in base.items():
            merged = new_memory(pretrained)
            scaling = single(self.at(name).scaling)
            pieces = together(({name: merged}, {name: pretrained}), name)
            for (out, start), vectors in zip(pieces, _vectors(base, experts, name), strict=True):
                torch.add(start, scaling * _balanced(vectors, clamps, cuts), out=out)
            yield name, merged

    def _clamp(self, base: Tensors, expert: Tensors, size: int) -> _Range:
        """Between which magnitudes a task vector's are clamped."""
        low = int(size * self.clip)
        high = max(int(size * (1 - self.clip)) - 1, low)
        pieces = partial(magnitudes, base, expert, list(base))
        return _Range(kth_largest(pieces, size, size - low), kth_largest(pieces, size, size - high))

    def _cut(self, base: Tensors, experts: Sequence[Tensors], position: int, clamp: _Range, size: int) -> _Range:
        """Between which values a task's scores count: from the smallest that is not dropped to the largest."""
        pieces = partial(_scores, base, experts, position, clamp)
        kept = max(1, size - int(size * (1 - self.density)))
        return _Range(kth_largest(pieces, size, kept), kth_largest(pieces, size, 1))


@dataclass(frozen=True)
class _Range:
    """The smallest and the largest of what counts."""

    low: float
    high: float

    def normalise(self, values: torch.Tensor) -> torch.Tensor:
        """Values clamped to the range → [0, 1]; 0 if the range is a single point."""
        if self.high <= self.low:
            return torch.zeros_like(values)
        return (values.clamp(self.low, self.high) - self.low) / (self.high - self.low)


def _balanced(vectors: Sequence[torch.Tensor], clamps: Sequence[_Range], cuts: Sequence[_Range]) -> torch.Tensor:
    """The merged task vector's entries."""
    total = reduce(torch.add, vectors)
    combined, scales = torch.zeros_like(total), torch.zeros_like(total)
    for vector, clamp, cut in zip(vectors, clamps, cuts, strict=True):
        scale = cut.normalise(_score(vector, total, clamp, len(vectors)))
        combined += vector.sign() * vector.abs().clamp(clamp.low, clamp.high) * scale
        scales += scale
    return combined / scales.clamp(min=1e-12)


def _score(vector: torch.Tensor, total: torch.Tensor, clamp: _Range, count: int) -> torch.Tensor:
    # exp(T · (x² − 1)), not exp(T · x²): a constant factor on a task's scores changes nothing once they are
    # normalised, and without it many experts would overflow.
    within = torch.exp(count * (clamp.normalise(vector.abs()).square() - 1))
    return within * torch.tanh(vector * total)


def _scores(
    base: Tensors, experts: Sequence[Tensors], position: int, clamp: _Range, stride: int
) -> Iterator[torch.Tensor]:
    """One task's scores as 1-D tensors of one dtype; with ``stride``, about every stride-th."""
    dtype = common_dtype(base)
    for name in base:
        for vectors in _vectors(base, experts, name, stride):
            yield _score(vectors[position], reduce(torch.add, vectors), clamp, len(experts)).to(dtype)


def _vectors(
    base: Tensors, experts: Sequence[Tensors], name: str, stride: int = 1
) -> Iterator[list[torch.Tensor]]:
    """One tensor of every task vector, in pieces that fit a core's cache."""
    for pretrained, *tuned in together((base, *experts), name, stride):
        yield [piece - pretrained for piece in tuned]
