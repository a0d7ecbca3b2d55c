"""A merge that is another one for every picture."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from mergerisk.defenses.hidden import HidingDefense
from mergerisk.validation import hyperparameters


@hyperparameters
class LambdaPerQuery(HidingDefense):
    """Each picture is answered by one of several merges with hidden λ and draws, drawn by the secret and what the
    picture shows; see :class:`~mergerisk.defenses.HidingDefense`. An answer costs one forward pass, and memory as
    many encoders as there are merges. Attackers average over merges of their own, or, who hold all of them, over
    these: they know everything but which one a picture gets.

    Attributes:
        members: how many merges there are.
    """

    one_for_each: ClassVar[bool] = True

    members: Annotated[int, Field(ge=2, le=100)] = 8

    @property
    def count(self) -> int:
        return self.members
