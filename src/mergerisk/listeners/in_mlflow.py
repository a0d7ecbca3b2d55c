"""Runs in MLflow. Where its runs go, MLflow's own variables say: ``MLFLOW_TRACKING_URI`` and their like."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.listeners.tracked import Tracker, library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd

_ENDS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_AT_ONCE = 100
"""Parameters, and metrics, in one request: MLflow takes no more of the first."""


class MlflowTracker(Tracker):
    """A run of MLflow for every run of a study, or search for recipes; within ``with mlflow.start_run():`` that
    one.

    Args:
        experiment: its name; ``MLFLOW_EXPERIMENT_NAME``, or ``mergerisk``, by default.

    Raises:
        UserError: MLflow is not installed.
    """

    name: ClassVar[str] = "mlflow"

    def __init__(self, experiment: str | None = None) -> None:
        super().__init__()
        self._mlflow = library("mlflow", "MLflow", "mlflow")
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "mergerisk"
        self._client: Any = None
        self._run = ""
        self._own = True

    def begin(self, study: str, parameters: Mapping[str, str], facts: Mapping[str, str]) -> None:
        self._run = ""  # should this fail, no run before it is ended again
        self._client = self._mlflow.MlflowClient()
        active = self._mlflow.active_run()
        self._own = active is None
        self._run = self._started(study) if active is None else active.info.run_id
        entities = self._mlflow.entities
        for some in _portions(parameters):
            self._client.log_batch(self._run, params=[entities.Param(*pair) for pair in some])
        tags = [entities.RunTag(f"mergerisk.{name}", value) for name, value in facts.items()]
        self._client.log_batch(self._run, tags=tags)

    def _started(self, study: str) -> str:
        """The id of a new run in the experiment, which is made if there is none."""
        found = self._client.get_experiment_by_name(self._experiment)
        place = self._client.create_experiment(self._experiment) if found is None else found.experiment_id
        made = self._client.create_run(place, run_name=study)
        return str(made.info.run_id)

    def progress(self, step: int, figures: Mapping[str, float]) -> None:
        self._log(figures, step)

    def measure(self, metrics: Mapping[str, float]) -> None:
        self._log(metrics, 0)

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        now = round(1000 * time.time())
        for some in _portions(metrics):
            found = [self._mlflow.entities.Metric(name, value, now, step) for name, value in some]
            self._client.log_batch(self._run, metrics=found)

    def table(self, name: str, table: pd.DataFrame) -> None:
        self._client.log_table(self._run, table, f"{name}.json")

    def keep(self, files: list[Path]) -> None:
        for file in files:
            self._client.log_artifact(self._run, str(file))

    def conclude(self, headline: str) -> None:
        self._client.set_tag(self._run, "mergerisk.recommended", headline)

    def end(self, how: str) -> None:
        if self._own:
            self._client.set_terminated(self._run, _ENDS[how])


def _portions(pairs: Mapping[str, Any]) -> Iterator[list[tuple[str, Any]]]:
    """Names and values, as many as fit into one request."""
    listed = [*pairs.items()]
    for first in range(0, len(listed), _AT_ONCE):
        yield listed[first : first + _AT_ONCE]
