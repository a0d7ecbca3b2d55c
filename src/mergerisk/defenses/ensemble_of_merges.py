"""Several merges that answer together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mergerisk.defenses.hidden import HidingDefense
from mergerisk.validation import hyperparameters


@hyperparameters
class EnsembleOfMerges(HidingDefense):
    """The mean probabilities of merges with hidden λ and draws; see :class:`~mergerisk.defenses.HidingDefense`. An
    answer costs as many forward passes.

    Attributes:
        members: how many.
    """

    members: Annotated[int, Field(ge=2, le=100)] = 4

    @property
    def count(self) -> int:
        return self.members
