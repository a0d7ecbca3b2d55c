"""What targets say of adversarial images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.results import ArrayStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from mergerisk.study.variants.variant import TargetVariant
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Evaluate(ArrayStage):
    """Predictions on a sweep of budgets: columns of the target × budgets × iterates × images.

    Attributes:
        target: who is asked.
        crafted: the adversarial images of every budget.
        shown: images that are shown, of all budgets and iterates together.
    """

    kind: ClassVar[str] = "evaluate"
    noun: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 3
    rank: ClassVar[int] = 7

    target: TargetVariant
    crafted: tuple[Input[torch.Tensor], ...]
    shown: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Images of the whole sweep, times the encoders that each passes."""
        return {self.target.answers_by: self.shown * self.target.passes}

    def run(self, bench: Workbench) -> Result:
        """Classes that the targets name: columns, then as the sweep's sets are laid out (budgets × iterates ×
        images)."""
        import torch

        shown = torch.stack([bench.arrays(made.key)["adversarial"] for made in self.crafted])
        predictions = self.target.answer(bench, shown.flatten(0, 2))
        return Result({"predictions": predictions.unflatten(1, shown.shape[:3]).numpy()})
