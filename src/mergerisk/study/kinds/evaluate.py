"""What targets say of adversarial images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.differences import crafted_shape
from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.shards import Divisible
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from mergerisk.study.variants.variant import TargetVariant
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Evaluate(Divisible):
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

    @property
    def rows(self) -> int:
        """An image each, of all budgets and iterates; a black box is asked all at once, at its own pace."""
        return 0 if self.target.answers_by == "query" else self.shown

    def whole_cost(self) -> Mapping[str, int]:
        """Images of the whole sweep, times the encoders that each passes."""
        return {self.target.answers_by: self.shown * self.target.passes}

    def part(self, bench: Workbench, first: int, last: int | None) -> Mapping[str, NDArray[Any]]:
        """Classes that the targets name: columns × rows, as the sweep's sets are laid out (budgets × iterates ×
        images)."""
        import torch

        iterates, images = self._layout(bench)
        each = iterates * images
        last = each * len(self.crafted) if last is None else min(last, each * len(self.crafted))
        if first >= last > 0:
            return {}
        sets = range(first // max(1, each), -(-last // max(1, each)))
        shown = [bench.crafted(self.crafted[place].key)["adversarial"].flatten(0, 1) for place in sets]
        before = sets.start * each
        rows = torch.cat(shown)[first - before : last - before]
        return {"predictions": self.target.answer(bench, rows, first).numpy()}

    def joined(self, bench: Workbench, parts: Sequence[Mapping[str, NDArray[Any]]]) -> Result:
        """Columns of the targets × budgets × iterates × images."""
        import numpy as np

        predictions = np.concatenate([part["predictions"] for part in parts if part], axis=1)
        return Result(
            {"predictions": predictions.reshape(len(predictions), len(self.crafted), *self._layout(bench))}
        )

    def _layout(self, bench: Workbench) -> tuple[int, int]:
        """Iterates and images of every set."""
        iterates, images, *_ = crafted_shape(bench.store.manifest(self.crafted[0].key))
        return iterates, images
