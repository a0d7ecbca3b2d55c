"""How little adversarial images show that they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.results import ArrayStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task
    from mergerisk.transfer import StealthMeasure


@dataclass(frozen=True, kw_only=True)
class MeasureStealth(ArrayStage):
    """Measures of the last iterates of a sweep; see :func:`mergerisk.transfer.stealth`.

    Keeps per budget and image, one after the other, ``epsilon``, ``image`` (its index) and every measure, and why
    an image has none of one.

    Attributes:
        task: whose images were attacked.
        crafted: the adversarial images of every budget.
        epsilons: the budgets.
        measures: which.
        shown: images, of all budgets together.
    """

    kind: ClassVar[str] = "measure_stealth"
    noun: ClassVar[str] = "measure stealth"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 8

    task: Input[Task]
    crafted: tuple[Input[torch.Tensor], ...]
    epsilons: tuple[float, ...]
    measures: tuple[StealthMeasure, ...]
    shown: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """What a network measures passes through it, beside the image that it is compared with."""
        return {"forward": 2 * self.shown} if "lpips" in self.measures else {}

    def run(self, bench: Workbench) -> Result:
        """One row per budget and image."""
        import numpy as np

        from mergerisk.transfer import stealth

        columns: dict[str, list[NDArray[Any]]] = {}
        reasons: dict[str, str] = {}
        clean = bench.task(self.task).test.images
        for epsilon, made in zip(self.epsilons, self.crafted, strict=True):
            kept = bench.crafted(made.key)
            indices = kept["indices"]
            images, adversarial = (
                several.to(bench.compute.device) for several in (clean[indices], kept["adversarial"][-1])
            )
            columns.setdefault("epsilon", []).append(np.full(len(indices), epsilon))
            columns.setdefault("image", []).append(indices.numpy())
            for measure, found in stealth(images, adversarial, self.measures).items():
                columns.setdefault(measure, []).append(found.values)
                reasons[measure] = found.missing or reasons.get(measure, "")
        return Result({name: np.concatenate(parts) for name, parts in columns.items()}, {"reasons": reasons})
