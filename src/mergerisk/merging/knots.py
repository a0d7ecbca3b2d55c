"""KnOTS: low-rank task vectors in a basis that all of them share, merged there by TIES."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field

from mergerisk.merging.dare import Dare
from mergerisk.merging.dropped import identity
from mergerisk.merging.per_layer import Scaling, single
from mergerisk.merging.singular import truncated_svd
from mergerisk.merging.states import StateMerging
from mergerisk.merging.ties import Ties
from mergerisk.randomness import generator
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mergerisk.merging.material import Tensors


@hyperparameters
class KnotsTies(StateMerging):
    """KnOTS-TIES (Stoica et al. 2025, arXiv 2410.19735, section 4), for experts of a low-rank Δ, as LoRA's.

    The task matrices of a layer stand beside one another, [τ1 … τT] = U Σ [V1 … VT]ᵀ, and each is merged as Σ Vtᵀ
    = Uᵀ τt, in the basis U that all share: TIES trims, elects and combines those of all layers together (what LoRA
    leaves alone has none), and θ = θ0 + λ · U · that. Tensors that are no matrices are merged beside them as they
    are.

    Any experts can be merged so; of a full rank, those of all layers are in memory at once, as large as the
    experts. The authors' code keeps directions of σ > 1e-5 whatever the weights' scale; here it is 1e-5 of the
    largest, as in TSV-M. It leaves out what is no matrix.

    Attributes:
        density: share of entries that TIES keeps, over all layers; see :class:`mergerisk.merging.Ties`.
        variant: of TIES.
        scaling: λ, or one per layer; 0.6 in the authors' configuration of eight tasks on CLIP ViT-B/32, who search
            it on validation data.
        drop_rate: p of DARE before TIES, in [0, 1): entries of Σ Vtᵀ are dropped at random, the rest divided by
            1 − p (KnOTS-DARE-TIES: 0.1, with ``density: 1`` and ``scaling: 0.7``).
    """

    uses_seed: ClassVar[bool] = True

    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    variant: Literal["mean", "sum"] = "mean"
    scaling: Scaling = 0.6
    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def held(self, count: int) -> float:
        """Of experts of a low rank; those of a full one take about 5 models and one per expert."""
        del count
        return 3.5

    def combine(
        self, base: Tensors, experts: Sequence[Tensors], *, seed: int = 0
    ) -> Iterator[tuple[str, torch.Tensor]]:
        bases: dict[str, torch.Tensor | None] = {}
        aligned: list[dict[str, torch.Tensor]] = [{} for _ in experts]
        for name, pretrained in base.items():
            tuned = [expert[name] for expert in experts]
            vectors = [expert - pretrained for expert in tuned]
            if not any(bool(vector.any()) for vector in vectors):
                yield name, pretrained.clone()
                continue
            bases[name] = None
            if pretrained.ndim == 2:
                beside = torch.cat(vectors, dim=1)
                shared = bases[name] = truncated_svd(beside, min(beside.shape))[0].to(pretrained)
                vectors = [shared.mT @ vector for vector in vectors]
            for place, vector in enumerate(vectors):
                aligned[place][name] = self._left(vector, tuned[place], place, seed) if self.drop_rate else vector
        nothing = {name: torch.zeros_like(vector) for name, vector in aligned[0].items()}
        for name, merged in Ties(variant=self.variant, density=self.density, scaling=1.0).combine(
            nothing, aligned
        ):
            shared_by = bases[name]
            change = merged if shared_by is None else shared_by @ merged
            yield name, torch.add(base[name], change, alpha=single(self.at(name).scaling))

    def _left(self, vector: torch.Tensor, tuned: torch.Tensor, place: int, seed: int) -> torch.Tensor:
        """What DARE leaves of a task vector in the shared basis.

        Args:
            vector: Σ Vtᵀ, or a tensor that is no matrix.
            tuned: the expert's tensor, whose values the draws belong to.
            place: the expert's.
            seed: the merge's.
        """
        draws = torch.rand(
            vector.shape, generator=generator(seed, "knots", place, identity(tuned)), dtype=torch.float32
        )
        return Dare(drop_rate=self.drop_rate).drop(vector, draws.to(vector.device))
