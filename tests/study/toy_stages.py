"""Stages of no room, for tests of what handles stages whatever their kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.stage import Result, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Toy(Stage):
    """Keeps its own number."""

    kind: ClassVar[str] = "toy"
    noun: ClassVar[str] = "play"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 0

    number: int = 0
    needs: tuple[Input[Any], ...] = ()
    images: Mapping[str, int] = unkeyed(default_factory=dict)

    def cost(self) -> Mapping[str, int]:
        return self.images

    def run(self, bench: Workbench) -> Result:  # noqa: ARG002  # it has all it needs
        return Result({"number": np.array([self.number])})


@dataclass(frozen=True, kw_only=True)
class OtherToy(Toy):
    """Another kind of the same fields."""

    kind: ClassVar[str] = "other toy"
    noun: ClassVar[str] = "play otherwise"
