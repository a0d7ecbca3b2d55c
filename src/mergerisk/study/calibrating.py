"""The unlabelled images that data-driven methods and corrections may read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mergerisk.study.keyed import Input, Keyed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models import Head
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class CalibrationData(Keyed):
    """What may be read, by ingredient.

    Attributes:
        split: ``held_out`` images, which share none with the test split, or those of the ``test`` split.
        tasks: ingredient → the task that it belongs to.
        heads: ingredient → that task's head.
    """

    kind: ClassVar[str] = "calibration"

    split: Literal["held_out", "test"]
    tasks: Mapping[str, Input[Task]]
    heads: Mapping[str, Input[Head]]
