"""WUDI-merging: the task vector of matrices that interferes least with each task's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from mergerisk.merging.descending import descend
from mergerisk.merging.per_layer import Scaling, single
from mergerisk.merging.singular import gram, inverse_root
from mergerisk.merging.states import TensorMerging
from mergerisk.merging.vectors import mean_vector, sum_vector
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence


@hyperparameters
class Wudi(TensorMerging):
    """WUDI-merging (Cheng et al. 2025, arXiv 2503.08099) as in the authors' code: data-free, matrix by matrix.

    The rows of a task matrix τt (m × n) span about what the layer reads on task t, so that a merged task matrix τ
    disturbs that task by (τ − τt) τtᵀ. τ minimises Σ ‖(τ − τt) τtᵀ‖² / ‖τt‖² (Frobenius norms), and θ = θ0 + λ τ.
    The gradient is 2 (τ C − D), with C = Σ τtᵀτt / ‖τt‖² and D = Σ τt τtᵀτt / ‖τt‖².

    ``early_stopped`` is what the authors publish: some steps of Adam from Σ τt, far from the minimum.
    ``closed_form`` is the minimum itself, D C⁺, which the authors report as worse (arXiv 2606.07289, and 82.3 %
    instead of 84.6 % on eight tasks of ViT-B/32 in their code): directions that task vectors hardly span weigh as
    much there as those they do.

    Adam's step is an absolute length. No entry of τ moves by much more than ``steps`` × ``learning_rate``, 0.003
    by default, which fits the small task vectors of CLIP's experts; larger ones stay near Σ τt, and want a larger
    ``learning_rate``. An expert whose matrix is the base's, 0/0 in the authors' code and FusionBench, takes no
    part. Embeddings are matrices too, as for :class:`TsvM`; the authors take the linear layers of attention and
    MLPs alone, FusionBench every matrix.

    Experts' matrices are read one after another, twice; C and the gradient at Σ τt are all that is kept of them.

    Attributes:
        variant: ``early_stopped`` (the authors), or ``closed_form``, the loss's minimum.
        steps: of Adam, betas (0.9, 0.999); 300 in the authors' code. Unused by ``closed_form``, as is the next.
        learning_rate: 1e-5 there.
        others: what becomes of tensors that are no matrices: ``base`` leaves them as they are (the authors' code),
            ``mean`` adds the mean of τt (FusionBench).
        scaling: λ, or one per layer; 1, since the paper does without one.
    """

    variant: Literal["early_stopped", "closed_form"] = "early_stopped"
    steps: PositiveInt = 300
    learning_rate: PositiveFloat = 1e-5
    others: Literal["base", "mean"] = "base"
    scaling: Scaling = 1.0

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        if pretrained.ndim != 2 or pretrained.numel() == 0:
            if self.others == "base":
                return pretrained.clone()
            return torch.add(pretrained, mean_vector(pretrained, experts), alpha=single(self.scaling))
        if self.variant == "closed_form":  # C is to be inverted: it squares singular values, so float64
            loss = _interference(pretrained, experts, torch.float64)
            root, _ = inverse_root(loss.curvature, pretrained.dtype)
            change = (loss.slope @ root @ root).neg_()
        else:
            loss = _interference(pretrained, experts, pretrained.dtype)
            change = descend(
                torch.zeros_like(loss.total), loss.gradient, steps=self.steps, learning_rate=self.learning_rate
            )
        return torch.add(pretrained, loss.total.add_(change).to(pretrained), alpha=single(self.scaling))


@dataclass(frozen=True)
class _Interference:
    """The loss around Σ τt, where τ starts.

    Attributes:
        total: Σ τt, m × n.
        slope: half the gradient at Σ τt, Σs (Σt τt − τs) τsᵀτs / ‖τs‖², m × n; exactly 0 for a single expert.
        curvature: C, n × n.
    """

    total: torch.Tensor
    slope: torch.Tensor
    curvature: torch.Tensor

    def gradient(self, change: torch.Tensor) -> torch.Tensor:
        """At Σ τt + ``change``."""
        return torch.addmm(self.slope, change, self.curvature).mul_(2)


def _interference(pretrained: torch.Tensor, experts: Sequence[torch.Tensor], dtype: torch.dtype) -> _Interference:
    """All of it in ``dtype``."""
    total = sum_vector(pretrained, experts).to(dtype)
    slope = torch.zeros_like(total)
    curvature = total.new_zeros(total.shape[1], total.shape[1])
    for expert in experts:
        vector = (expert - pretrained).to(dtype)
        square = float(vector.double().square().sum())
        if square > 0:
            own = gram(vector, dtype).div_(square)
            curvature.add_(own)
            slope.addmm_(total - vector, own)
    return _Interference(total, slope, curvature)
