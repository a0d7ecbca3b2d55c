"""Runs in Weights & Biases. Where to, its own variables say: ``WANDB_MODE`` and its like."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.listeners.tracked import Tracker, library

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
"""What the name of an artifact may not have."""


class WandbTracker(Tracker):
    """A run of Weights & Biases for every run of a study, or search for recipes; where one is under way in the
    process, that one.

    What a terminal shows is not recorded.

    Args:
        project: its name; ``WANDB_PROJECT``, or ``mergerisk``, by default.

    Raises:
        UserError: its library is not installed.
    """

    name: ClassVar[str] = "wandb"

    def __init__(self, project: str | None = None) -> None:
        super().__init__()
        self._wandb = library("wandb", "Weights & Biases", "wandb")
        self._project = project or os.environ.get("WANDB_PROJECT") or "mergerisk"
        self._run: Any = None
        self._own = True
        self._study = ""

    def begin(self, study: str, parameters: Mapping[str, str], facts: Mapping[str, str]) -> None:
        self._study, self._run = study, None  # should this fail, no run before it is ended again
        self._own = self._wandb.run is None
        if self._own:
            settings = self._wandb.Settings(console="off")
            name = os.environ.get("WANDB_NAME") or study
            self._run = self._wandb.init(project=self._project, name=name, settings=settings)
        else:
            self._run = self._wandb.run
        self._run.config.update({**parameters, "versions": dict(facts)})

    def progress(self, step: int, figures: Mapping[str, float]) -> None:
        del step  # which has to rise over all that is told
        self._run.log(dict(figures))

    def measure(self, metrics: Mapping[str, float]) -> None:
        self._run.summary.update(dict(metrics))

    def table(self, name: str, table: pd.DataFrame) -> None:
        self._run.log({name: self._wandb.Table(dataframe=table)})

    def keep(self, files: list[Path]) -> None:
        artifact = self._wandb.Artifact(_UNFIT.sub("_", f"{self._study}-results"), type="results")
        for file in files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact)

    def conclude(self, headline: str) -> None:
        self._run.summary["recommended"] = headline

    def end(self, how: str) -> None:
        if self._own:
            self._run.finish(exit_code=0 if how == "finished" else 1)
