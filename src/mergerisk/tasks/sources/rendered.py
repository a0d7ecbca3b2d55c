"""Starter tasks."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from mergerisk.tasks.outline import Outline, Remarks
from mergerisk.tasks.source import TaskSource
from mergerisk.tasks.starter import STARTER_TASKS, STARTER_VERSION, class_names, render, split_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.tasks.arrays import TaskArrays

_RENDERED_WITH = ("numpy", "pillow", "matplotlib", "scikit-learn")
"""The distributions whose versions can change a rendered pixel."""


@dataclass(frozen=True)
class StarterSource(TaskSource):
    """A starter task, by its name."""

    @classmethod
    def takes(cls, spec: str) -> bool:
        return spec in STARTER_TASKS

    def identity(self) -> Mapping[str, Any]:
        versions = {name: metadata.version(name) for name in _RENDERED_WITH}
        return {"starter": self.spec, "version": STARTER_VERSION, "rendered_with": versions}

    def arrays(self) -> TaskArrays:
        return render(self.spec)

    def check(self) -> Outline:
        sizes, pixels = split_sizes(self.spec), 32 * 32 * 3
        return Outline(class_names(self.spec), *sizes, 4 * pixels, sum(sizes) * pixels)

    def remarks(self) -> Remarks:
        return Remarks()
