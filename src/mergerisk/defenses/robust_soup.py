"""A soup of models that resist different attackers."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from mergerisk.defenses.mixing import Member, MixingDefense, Step
from mergerisk.defenses.robust_training import robust_step
from mergerisk.errors import UserError
from mergerisk.validation import Epsilon, hyperparameters


@hyperparameters
class RobustSoup(MixingDefense):
    """a θ∞ + (1 − a) θ₂ (Croce et al. 2023, arXiv 2302.10164): θ∞ is the model, trained against L∞ attackers; θ₂
    is θ∞, trained on against L2 ones. Only what comes from one robust model can be mixed so. The paper has a
    third norm, L1, which nothing here attacks in.

    Attributes:
        share: a; beyond 0 and 1 lie points that the paper tries too.
        by: the training defense, one that looks for the worst images.
        training: its hyper-parameters, ``epsilon`` of L∞ among them.
        l2_epsilon: the budget against L2 attackers, in pixel units.
    """

    share: Annotated[float, Field(ge=-1, le=2)] = 0.5
    by: str = "tecoa"
    training: dict[str, Any] = Field(default_factory=dict)
    l2_epsilon: Epsilon = 0.5

    @model_validator(mode="after")
    def _one_norm_each(self) -> Self:
        if self.training.get("norm", "linf") != "linf":
            raise UserError("training: norm is the soup's own: one model is trained in linf, one in l2")
        object.__setattr__(self, "training", self._steps[0].parameters)
        return self

    @property
    def _steps(self) -> tuple[Step, Step]:
        """Against L∞, and then against L2."""
        of_l2 = {"norm": "l2", "epsilon": self.l2_epsilon, "step_size": None}
        changes: tuple[dict[str, Any], ...] = ({}, of_l2)
        first, second = (robust_step(self.by, self.training | one, searching=True) for one in changes)
        return first, second

    @property
    def members(self) -> tuple[Member, ...]:
        first, second = self._steps
        return Member(self.share, "model", (first,)), Member(1 - self.share, "model", (first, second))
