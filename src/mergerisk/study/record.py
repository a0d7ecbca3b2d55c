"""What a run keeps of how its results came about."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mergerisk.provenance import git_revision, versions
from mergerisk.study.differences import crafted_shape
from mergerisk.study.kinds.craft import Craft
from mergerisk.study.kinds.expert import Expert
from mergerisk.study.kinds.given_model import GivenModel
from mergerisk.study.kinds.load_task import LoadTask
from mergerisk.study.planning import make_plan, single_step_attacks
from mergerisk.study.stage import image_counts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from mergerisk.store import Store
    from mergerisk.study.executors.hiring import Workforce
    from mergerisk.study.planning import Plan
    from mergerisk.tasks.outline import Outline
    from mergerisk.tasks.source import TaskSource

PEAKS = ("peak_bytes", "peak_device_bytes")
"""What is kept of memory; see :func:`mergerisk.memory.watched`."""


def _dataset_commits(plan: Plan) -> dict[str, str]:
    """The commit of every dataset of the hub, by its name."""
    tasks = [stage.identity for stage in plan.stages.values() if isinstance(stage, LoadTask)]
    return {f"hub:{task['hub']}": str(task["commit"]) for task in tasks if "hub" in task}


def _skipped(plan: Plan, store: Store) -> dict[str, list[dict[str, str]]]:
    """Task → files of it that could not be read, and why."""
    found = {run.task: store.manifest(run.task_key)["info"].get("skipped", []) for run in plan.task_runs}
    return {task: files for task, files in found.items() if files}


def _own_forms(plan: Plan, store: Store) -> dict[str, list[str]]:
    """Model made elsewhere → where its own configuration or preprocessing, which it keeps, is not the base's."""
    loaded = {stage.label: key for key, stage in plan.stages.items() if isinstance(stage, GivenModel)}
    forms = {label: store.manifest(key)["info"].get("form") for label, key in loaded.items()}
    return {label: form["differences"] for label, form in forms.items() if form}


def _counts(plan: Plan, store: Store, outlines: Mapping[TaskSource, Outline]) -> dict[str, int]:
    """Images crafted, and passed through models, by what was there to read: files that could not be read are no
    images, though they were planned with."""
    read = _really_read(plan, store, outlines)
    if read != outlines:
        plan = make_plan(plan.study, outlines=read)
    crafted = [key for key, stage in plan.stages.items() if isinstance(stage, Craft)]
    images = sum(crafted_shape(store.manifest(key))[1] for key in crafted)
    passed = image_counts(plan.stages.values())
    return {"crafted_images": images, **{f"images_{how}": count for how, count in passed.items()}}


def _really_read(plan: Plan, store: Store, outlines: Mapping[TaskSource, Outline]) -> Mapping[TaskSource, Outline]:
    """The outlines, with the splits as they came to be where files could not be read."""
    from mergerisk.study.workbench import Compute, Workbench

    bench, found = Workbench(store, Compute()), dict(outlines)
    for key, stage in plan.stages.items():
        if isinstance(stage, LoadTask) and store.manifest(key)["info"].get("skipped"):
            task = bench.task(stage.result)
            found[stage.source] = replace(
                found[stage.source], train=len(task.train), calibration=len(task.calibration), test=len(task.test)
            )
    return found


def covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in some span: those of workers at the same time count once, pauses between parts of a run
    do not."""
    total, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _steps_per_epoch(plan: Plan, store: Store) -> dict[str, int]:
    """Task → optimiser steps in an epoch of its expert's fine-tuning, where the store knows it; the fewest."""
    found: dict[str, int] = {}
    for key, stage in plan.stages.items():
        if isinstance(stage, Expert):
            steps = int(store.manifest(key)["info"]["steps_per_epoch"])
            found[stage.name] = min(found.get(stage.name, steps), steps)
    return found


def record_of(
    plan: Plan,
    store: Store,
    outlines: Mapping[TaskSource, Outline],
    *,
    out: Path,
    cached: Collection[str],
    crew: Workforce,
) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    """What ``run.json`` says of how the results came about, as far as the store knows it; and when each stage was
    computed, from and to, in seconds of the epoch, in whichever part of a run that was stopped and resumed.

    Args:
        plan: whose every stage is done.
        store: where.
        outlines: of the plan's tasks.
        out: the run's folder.
        cached: keys of what was there before the run.
        crew: who made the stages of the run.

    Raises:
        LostArtefactError: a manifest is damaged, or gone.
    """
    kinds: dict[str, dict[str, float]] = {}
    stages, spans, finished = [], [], None
    devices: dict[str, None] = {}
    used: dict[str, dict[str, None]] = {}
    for key, stage in plan.stages.items():
        made = store.manifest(key)["provenance"]  # read once and let go: there may be many thousands
        seconds = float(made["seconds"])
        if "finished" in made:  # an older version did not keep it
            finished = max(finished or "", str(made["finished"]))
            end = datetime.fromisoformat(made["finished"]).timestamp()
            spans.append((end - seconds, end))
        devices[made["device"]] = None
        for name, version in made["versions"].items():
            used.setdefault(name, {})[version] = None
        summary = kinds.setdefault(stage.kind, {"count": 0, "cached": 0, "seconds": 0.0})
        summary["count"] += 1
        summary["cached"] += key in cached
        summary["seconds"] += seconds
        memory = {name: made[name] for name in PEAKS if name in made}  # an older version did not keep it
        for name, most in memory.items():
            if most is not None:
                summary[name] = max(summary.get(name, 0), most)
        stages.append({"kind": stage.kind, "label": stage.label, "key": key, "seconds": seconds, **memory})
    inside = store.root.is_relative_to(out)
    record = {
        "device": crew.device,
        "workers": crew.workers,
        "versions": versions(),
        "git_revision": git_revision(),
        "store": str(store.root.relative_to(out) if inside else store.root.resolve()),
        "single_step_attacks": sorted(single_step_attacks(plan.study)),
        "steps_per_epoch": _steps_per_epoch(plan, store),
        "kinds": kinds,
        "stages": stages,
        # Of all that the results rest on, in whichever run it was computed; several where stages differ.
        "computed": {
            "finished": finished,
            "devices": list(devices),
            "versions": {name: list(several) for name, several in used.items()},
        },
        "skipped": _skipped(plan, store),
        "counts": _counts(plan, store, outlines),
        "own_forms": _own_forms(plan, store),
        "commits": _dataset_commits(plan),
    }
    return record, spans
