"""Stages of no room, for tests of what handles stages whatever their kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.stage import Result, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.store import Store
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


def model(store: Store, size: int, number: int = 100) -> Input[Any]:
    """What stands for a model of so many bytes, and takes no room."""
    made = Toy(label="model", number=number)
    store.folder(made.key).mkdir(parents=True)
    with store.tensors(made.key).open("wb") as file:
        file.truncate(size)
    return Input(made.key)
