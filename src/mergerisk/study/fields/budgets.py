"""How far attacks may go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mergerisk.study.fields.basics import Model
from mergerisk.validation import Count, Epsilon


class Budgets(Model):
    """The grid of budgets.

    Attributes:
        epsilon: budgets in pixel units, written as numbers or fractions (``2/255``).
        norm: what they bound: ``linf``, the change of any pixel, or ``l2``, the length of an image's change.
        steps: of every attack that takes several and does not say itself.
        after: numbers of steps after which outcomes are kept as well, for the attacks that take more.
    """

    epsilon: Annotated[tuple[Epsilon, ...], Field(min_length=1, max_length=1000)]
    norm: Literal["linf", "l2"] = "linf"
    steps: Count = 10
    after: tuple[Count, ...] = ()

    @property
    def middle(self) -> float:
        """The budget of which one is spoken where one is: the middle one, of two the smaller."""
        return self.epsilon[(len(self.epsilon) - 1) // 2]

    @field_validator("epsilon", "after")
    @classmethod
    def _rising(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError("a number is given twice")
        return tuple(sorted(values))

    @model_validator(mode="after")
    def _in_range(self) -> Budgets:
        if self.norm == "linf" and self.epsilon[-1] > 1:
            raise ValueError(f"epsilon: an L∞ budget is at most 1, as pixels are; got {self.epsilon[-1]:g}")
        return self
