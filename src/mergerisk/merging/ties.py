"""TIES: trim, elect signs, merge what agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from mergerisk.merging.per_layer import Scaling, single
from mergerisk.merging.states import StateMerging
from mergerisk.merging.vectors import magnitude_threshold, new_memory, together
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors


@hyperparameters
class Ties(StateMerging):
    """TIES-merging (Yadav et al. 2023, arXiv 2306.01708, algorithm 1).

    Each task vector keeps its largest entries by magnitude; each entry elects the sign of the sum of what was
    kept (a zero sum takes the sign that most entries elected); the entries that agree with it are combined.

    mergekit weighs task vectors before the election, keeps the rounded-down number of entries and elects + for
    a zero sum.

    Attributes:
        variant: ``mean`` divides by the number of agreeing entries (the paper's disjoint mean); ``sum`` does
            not (the code of AdaMerging and FusionBench).
        trim: ``global`` ranks all entries of a task together (the paper); ``per_tensor`` ranks each tensor
            alone (mergekit).
        density: share of entries kept, in (0, 1]. Entries that tie with the last one kept are kept too.
        scaling: λ on the combined task vector, or one per layer; None for the variant's usual value: 1 for
            ``mean``, 0.3 for ``sum``.
    """

    variant: Literal["mean", "sum"] = "mean"
    trim: Literal["global", "per_tensor"] = "global"
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    scaling: Scaling | None = None

    def combine(
        self,
        base: Tensors,
        experts: Sequence[Tensors],
        *,
        seed: int = 0,  # noqa: ARG002  # nothing is random
    ) -> Iterator[tuple[str, torch.Tensor]]:
        groups = [list(base)] if self.trim == "global" else [[name] for name in base]
        balance = 0
        undecided = []
        thresholds: dict[str, list[float]] = {}
        for names in groups:
            found = [magnitude_threshold(base, expert, names, self.density) for expert in experts]
            thresholds |= dict.fromkeys(names, found)
        for name in base:
            merged, elected, cancelled = self.at(name)._merge(base, experts, name, thresholds[name], 1.0)
            balance += elected
            if cancelled:  # their sign is that of the majority, which is known only at the end
                undecided.append(name)
            else:
                yield name, merged
        majority = 1.0 if balance >= 0 else -1.0
        for name in undecided:
            yield name, self.at(name)._merge(base, experts, name, thresholds[name], majority)[0]

    def _merge(
        self,
        base: Tensors,
        experts: Sequence[Tensors],
        name: str,
        thresholds: Sequence[float],
        majority: float,
    ) -> tuple[torch.Tensor, int, bool]:
        """One tensor merged; the sum of its elected signs; whether kept entries cancelled each other.

        Args:
            base: θ0.
            experts: every θt.
            name: the tensor's.
            thresholds: per expert, the smallest magnitude kept.
            majority: the sign that cancelled entries take.
        """
        scaling = {"mean": 1.0, "sum": 0.3}[self.variant] if self.scaling is None else single(self.scaling)
        pretrained = base[name]
        merged = new_memory(pretrained)
        bounds = [_just_below(threshold, pretrained.dtype) for threshold in thresholds]
        balance, cancelled = 0, False
        for out, start, *tuned in together(({name: merged}, {name: pretrained}, *experts), name):
            kept = [F.hardshrink(e - start, bound) for e, bound in zip(tuned, bounds, strict=True)]
            sign = kept[0].clone()
            for vector in kept[1:]:
                sign.add_(vector)
            sign.sign_()
            balance += int(sign.sum())
            nobody = sign.abs().neg_().add_(1)  # 1 where nothing was kept, or what was kept cancelled out
            sign.add_(nobody, alpha=majority)
            combined = torch.zeros_like(start)
            agreeing = torch.zeros_like(start)
            for vector in kept:
                combined.add_(vector.mul_(sign).clamp_(min=0))
                if self.variant == "mean":
                    agreeing.add_(vector.sign_())
            # What cancelled out has entries of either sign, so some agree with the majority.
            cancelled = cancelled or bool(nobody.dot(combined) > 0)
            if self.variant == "mean":
                combined.div_(agreeing.clamp_(min=1))
            torch.add(start, combined.mul_(sign), alpha=scaling, out=out)
        return merged, balance, cancelled


def _just_below(value: float, dtype: torch.dtype) -> float:
    """The next smaller number, since hardshrink drops entries that equal its bound."""
    return float(torch.nextafter(torch.tensor(value, dtype=dtype), torch.tensor(-torch.inf, dtype=dtype)))
