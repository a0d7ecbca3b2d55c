"""One number about a merge that nobody knows."""

from __future__ import annotations

from mergerisk.defenses.hidden import HidingDefense
from mergerisk.validation import hyperparameters


@hyperparameters
class Secrecy(HidingDefense):
    """One merge with a hidden λ; see :class:`~mergerisk.defenses.HidingDefense`."""

    @property
    def count(self) -> int:
        return 1
