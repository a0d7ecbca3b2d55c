"""A pair of models, compared by themselves: their weights, or what lies between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.measured import kept
from mergerisk.study.kinds.results import ArrayStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.causes.cause import Cause
    from mergerisk.models import State
    from mergerisk.study.asking import Asking
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.changed import Changed
    from mergerisk.study.stage import Result
    from mergerisk.study.variants.variant import SurrogateVariant
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class CompareModels(ArrayStage):
    """One diagnostic of a merge and an ingredient that no probe of one model answers.

    Keeps what :func:`~mergerisk.study.kinds.measured.kept` says.

    Attributes:
        task: whose attacked images are looked at; None for what reads weights alone.
        surrogate: the ingredient; None for what is of the merge alone.
        target: the merge.
        backbone: what both were made from.
        ingredients: name → what was merged; nothing for what does not look at them.
        coefficients: name → λ of a merge θ0 + Σ λ τ; None of others.
        changed: what was done to the ingredients before they were merged.
        cause: the diagnostic, in words that tell it from any other.
        asking: of which images, within which budget.
        diagnostic: the diagnostic itself.
        shown: images that are looked at; 0 of what reads weights alone.
    """

    kind: ClassVar[str] = "compare"
    noun: ClassVar[str] = "compare models"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 9

    task: Input[Task] | None
    surrogate: SurrogateVariant | None
    target: SurrogateVariant
    backbone: Backbone
    ingredients: Mapping[str, Input[State]]
    coefficients: Mapping[str, float] | None
    changed: Changed | None
    cause: str
    asking: Asking
    diagnostic: Cause = unkeyed()
    shown: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """What the diagnostic passes through models for the pair."""
        passes = self.diagnostic.passes_per_image(len(self.ingredients))
        return {how: self.shown * each for how, each in passes.items() if self.shown * each}

    def run(self, bench: Workbench) -> Result:
        """The diagnostic's columns, a value per part of the models, and why values are missing."""
        from dataclasses import replace

        import torch

        from mergerisk.causes.given import Given
        from mergerisk.errors import UserError

        given = Given(target={}) if self.task is None else self.asking.given(bench, self.task)
        base, experts = bench.base(self.backbone), None
        if self.ingredients:
            experts = bench.experts(self.backbone, self.ingredients)
            experts = experts if self.changed is None else self.changed.apply(base, experts)
        given = replace(
            given,
            target=self.target.classifier(bench),
            surrogate=None if self.surrogate is None else self.surrogate.classifier(bench),
            base=base,
            experts=experts or {},
            coefficients=self.coefficients or {},
        )
        if "coefficients" in self.diagnostic.needs and self.coefficients is None:
            reason = f"{self.target.labels} is no linear mix of its ingredients"
            return kept(self.diagnostic, reason, given.identities)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                found = self.diagnostic.answer(given)
        except UserError as error:
            return kept(self.diagnostic, str(error), given.identities)
        return kept(self.diagnostic, found, given.identities)
