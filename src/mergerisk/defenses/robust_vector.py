"""What robust training adds to the base, added to a merge."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from mergerisk.defenses.mixing import Member, MixingDefense
from mergerisk.defenses.robust_training import robust_step
from mergerisk.validation import hyperparameters


@hyperparameters
class RobustVector(MixingDefense):
    """θm + λ (θrob − θ0): a task vector of robustness (own, after task arithmetic, arXiv 2212.04089). θrob is the
    base θ0, trained robustly on the tasks together, or a robust base that there is already.

    Attributes:
        scale: λ; 0 is the model as it is.
        by: the training defense that makes θrob.
        training: its hyper-parameters.
    """

    scale: Annotated[float, Field(ge=0, le=2)] = 1.0
    by: str = "fare"
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _all_of_it(self) -> Self:
        object.__setattr__(self, "training", robust_step(self.by, self.training).parameters)
        return self

    @property
    def members(self) -> tuple[Member, ...]:
        return (
            Member(1.0, "model"),
            Member(self.scale, "robust", (robust_step(self.by, self.training),)),
            Member(-self.scale, "base"),
        )
