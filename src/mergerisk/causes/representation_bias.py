"""How far the target's features are from the surrogate's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mergerisk.causes.cause import ImageCause
from mergerisk.causes.given import Need
from mergerisk.causes.representations import FINAL, BlockFeatures, Features, check_comparable
from mergerisk.causes.result import Column, Values, stated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.probe import Probe


@hyperparameters
class RepresentationBias(ImageCause):
    """(1/k) Σ_j |φ_t(x)_j − φ_s(x)_j| per image, whose mean over images is the representation bias of a merge t
    and the expert s it is to stand in for (Yang et al. 2024, arXiv 2402.02705, equation 2); per block besides, on
    the mean over an image's tokens.

    In the features' own units, in [0, ∞); 0 for equal features. Features are those that the head reads, behind an
    adapter where there is one, and are not normalised.

    Attributes:
        blocks: measure every block as well; False for models without a list of blocks, or with different ones.
    """

    name: ClassVar[str] = "representation_bias"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "representation_bias",
            "feature value",
            0.0,
            None,
            "the features differ; transfers less",
            per_block=True,
        ),
    )

    blocks: bool = True

    @property
    def features(self) -> Probe:
        """What is asked of both models."""
        return BlockFeatures() if self.blocks else Features()

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (self.features,)

    def of_target(self) -> tuple[Probe, ...]:
        return (self.features,)

    def check_pair(self, surrogate: nn.Module, target: nn.Module) -> None:
        check_comparable(surrogate, target, self.name, blocks=self.blocks, widths=True)

    def compare(self, seen: Seen) -> Mapping[str, Values]:
        s, t = seen.surrogate[self.features], seen.target[self.features]
        return {
            self.name if part == FINAL else f"{self.name}_{part}": stated(_distance(s[part], t[part]))
            for part in (FINAL, *(name for name in s if name != FINAL))
        }


def _distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one.double() - other.double()).abs().mean(dim=1)
