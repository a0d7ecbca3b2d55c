"""The models of a study before anything is merged or attacked: what each says of its tasks' clean images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mergerisk.checking.reasons import order_of_classes
from mergerisk.errors import UserError
from mergerisk.statistics import wilson_interval
from mergerisk.store import open_store
from mergerisk.study.devices import resolve_device
from mergerisk.study.executors.events import RunStarted, nobody
from mergerisk.study.executors.hiring import BATCH_SIZE
from mergerisk.study.executors.local import hire_local
from mergerisk.study.kinds.correct import Correct
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.locating import locate
from mergerisk.study.planning import make_plan
from mergerisk.study.preflight import check_material, check_output
from mergerisk.study.reading import load_study
from mergerisk.study.resolving import resolve
from mergerisk.study.rounds import run_and_collect
from mergerisk.study.running import store_folder
from mergerisk.study.variants.encoders import EncoderVariant

if TYPE_CHECKING:
    from mergerisk.study import Study
    from mergerisk.study.executors.events import Listener
    from mergerisk.study.planning import Plan

PRETRAINED, EXPERT = "pretrained", "expert"


@dataclass(frozen=True)
class StudyCheck:
    """The clean accuracy of a study's models.

    Attributes:
        study: its name.
        tasks: one row per task: ``classes``, and images for ``train``, ``calibration`` and ``test``.
        accuracy: one row per task, model and seed: ``images``, ``correct``, ``accuracy``, and the ends ``low`` and
            ``high`` of Wilson's 95 % interval.
        warnings: what looks wrong.
        store: where models and predictions are kept, which a run into the same folder takes up.
    """

    study: str
    tasks: pd.DataFrame
    accuracy: pd.DataFrame
    warnings: tuple[str, ...]
    store: Path

    def to_dict(self) -> dict[str, Any]:
        """The same in types that JSON has."""
        return {
            "schema_version": 1,
            "study": self.study,
            "tasks": self.tasks.to_dict("records"),
            "accuracy": self.accuracy.to_dict("records"),
            "warnings": list(self.warnings),
        }


def check_study(
    study: str | Path | Study,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    offline: bool = False,
    listener: Listener = nobody,
) -> StudyCheck:
    """Make a study's heads and experts, and see what they and the pretrained encoder say of its test images.

    Nothing is merged or attacked. What is made is kept where a run of the same study finds it.

    Args:
        study: as of :func:`mergerisk.run`.
        out: the folder that the study would run into; ``runs/NAME`` by default.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        offline: take what comes from a hub from its cache only.
        listener: told what happens, as of a run; what it raises ends it.

    Raises:
        UserError: the study, or a file it names, is at fault.
    """
    from mergerisk.study.tables.clean import CleanTable
    from mergerisk.study.tables.gathered import Gathered

    resolved = load_study(study) if isinstance(study, str | Path) else resolve(study)
    folder = Path(out) if out is not None else Path("runs") / resolved.name
    check_output(folder)
    computes = resolve_device(device)
    located = locate(resolved, offline=offline)
    placed = located.study
    outlines = check_material(placed)
    plan = unmerged(make_plan(placed, located.notes, outlines))
    store = open_store(store_folder(folder, None))
    listener(RunStarted(resolved, folder, plan, store, computes, 1))
    computing = hire_local([computes], BATCH_SIZE)
    clean, _ = run_and_collect(
        plan, store, computing, lambda: CleanTable().collect(Gathered(plan, store), ()), listener=listener
    )
    about = {source.name: outline for source, outline in outlines.items()}
    tasks = pd.DataFrame(
        [
            {
                "task": name,
                "classes": len(about[name].class_names),
                "train": about[name].train,
                "calibration": about[name].calibration,
                "test": about[name].test,
            }
            for name in placed.task_names
        ]
    )
    rows, warnings = [], []
    for names, found in clean.groupby(["task", "model", "seed"], observed=True, sort=False):
        task, model, seed = (str(name) for name in names)
        labels, predictions = found["label"].to_numpy(), found["prediction"].to_numpy()
        correct = int((labels == predictions).sum())
        low, high = wilson_interval(correct, len(found))
        rows.append(
            {
                "task": task,
                "model": model,
                "seed": int(seed),
                "images": len(found),
                "correct": correct,
                "accuracy": correct / len(found),
                "low": float(low),
                "high": float(high),
            }
        )
        warnings += order_of_classes(f"{task}, {model}", about[task].class_names, labels, predictions)
    accuracy = pd.DataFrame(rows)
    return StudyCheck(resolved.name, tasks, accuracy, (*warnings, *_experts(accuracy)), store.root)


def unmerged(plan: Plan) -> Plan:
    """A plan without its merges and attacks: what the remaining models say of clean images.

    Raises:
        UserError: nothing remains.
    """

    def needed(key: str) -> set[str]:
        found = {key}
        for other in plan.stages[key].inputs.values():
            found |= needed(other)
        return found

    wanted = {PRETRAINED, EXPERT, *plan.study.target_labels}
    kept: set[str] = set()
    runs = []
    for run in plan.task_runs:
        evaluations = []
        for evaluation in run.clean:
            stages = needed(evaluation.key)
            made = any(isinstance(plan.stages[key], Merge | Correct) for key in stages)
            target = evaluation.target
            if isinstance(target, EncoderVariant) and not made and wanted & target.columns.keys():
                evaluations.append(evaluation)
                kept |= stages
        runs.append(replace(run, clean=tuple(evaluations)))
    if not kept:
        raise UserError("the study has no models but merges and black boxes; there is nothing to check")
    left = {key: stage for key, stage in plan.stages.items() if key in kept}
    return replace(plan, stages=left, task_runs=tuple(runs), sweeps=(), pieces={})


def _experts(accuracy: pd.DataFrame) -> list[str]:
    """Experts that are no better than the pretrained encoder on their own task."""
    correct = {
        (row["task"], row["seed"], row["model"]): int(row["correct"]) for row in accuracy.to_dict("records")
    }
    said = []
    for (task, seed, model), right in correct.items():
        base = correct.get((task, seed, PRETRAINED))
        if model == EXPERT and base is not None and right <= base:
            said.append(
                f"{task}: the expert is no better than the pretrained encoder ({right} and {base} right, seed "
                f"{seed}); its head, its file or its training is not what it should be"
            )
    return said
