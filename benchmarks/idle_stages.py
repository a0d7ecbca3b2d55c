"""Stages that do nothing, for :mod:`scheduling`; workers import them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mergerisk.study.stage import Result, Stage

if TYPE_CHECKING:
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Idle(Stage):
    """Keeps its own number."""

    kind: ClassVar[str] = "idle"
    noun: ClassVar[str] = "idle"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 0

    number: int

    def run(self, bench: Workbench) -> Result:  # noqa: ARG002  # it needs nothing
        return Result({"number": np.array([self.number])})
