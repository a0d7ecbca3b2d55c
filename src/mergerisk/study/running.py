"""Run a study: preflight, stages, outcomes."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from mergerisk.errors import UserError
from mergerisk.provenance import git_revision, versions
from mergerisk.store import LostArtefactError, Store
from mergerisk.study.examples import pick_pictures, pictures_to_bytes, read_pictures
from mergerisk.study.executors.local import run_stages
from mergerisk.study.files import write_bytes, write_parquet
from mergerisk.study.locating import locate
from mergerisk.study.notes import notes_of
from mergerisk.study.planning import make_plan, single_step_attacks
from mergerisk.study.preflight import (
    check_material,
    check_output,
    check_queries,
    check_same_study,
    check_space,
    resolve_device,
)
from mergerisk.study.stage import image_counts
from mergerisk.tasks.loading import TaskSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pandas as pd

    from mergerisk.study.examples import Picture
    from mergerisk.study.planning import Plan
    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage
    from mergerisk.tasks.outline import Outline

RECORD = "run.json"
OUTCOMES = "outcomes.parquet"
BY_STEP = "outcomes_by_step.parquet"
CLEAN = "clean.parquet"
PICTURES = "examples.safetensors"
STUDY = "study.yaml"

_MOST_REMADE = 3
"""Times that one damaged artefact is made again in a run."""


@dataclass(frozen=True)
class Options:
    """How a study is run; nothing here changes what it computes.

    Attributes:
        store: folder of artefacts; ``store`` in the run's folder by default. Studies may share one.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: processes; None for one per core, four at most, or one on a GPU.
        batch_size: images at a time.
        offline: take what comes from a hub from the cache only.
        force: replace the run of another study.
    """

    store: Path | None = None
    device: str = "auto"
    workers: int | None = None
    batch_size: int = 128
    offline: bool = False
    force: bool = False


@dataclass(frozen=True)
class FinishedRun:
    """A study whose every stage is done.

    Attributes:
        study: what was run, resolved.
        outcomes: one row per image and setting.
        by_step: the same for every iterate that was kept, of the attacks of which one was kept on the way; may
            be empty.
        clean: one row per test image and model.
        pictures: a few attacked images.
        record: what ``run.json`` holds: when, where, how long.
    """

    study: Study
    outcomes: pd.DataFrame
    by_step: pd.DataFrame
    clean: pd.DataFrame
    pictures: list[Picture]
    record: dict[str, Any]


def store_folder(out: Path, store: Path | None) -> Path:
    """The folder of a run's store: its own unless another is named."""
    return store or out / "store"


def run_study(
    study: Study,
    out: Path,
    options: Options,
    *,
    prepared: Callable[[Plan, Store], None] = lambda *_: None,
    listener: Callable[[Stage, str, float], None] = lambda *_: None,
) -> FinishedRun:
    """Make what is missing, then collect the outcomes into ``out``.

    Args:
        study: a resolved study.
        out: the run's folder.
        options: how to run it.
        prepared: called once everything is checked, before the first stage.
        listener: told of every stage's start and end.

    Raises:
        UserError: the study, a file or an option is at fault; raised before any training where it can be known.
    """
    check_output(out)
    if not options.force:
        check_same_study(study, out, out / STUDY)
    device = resolve_device(options.device)
    workers = options.workers or (1 if device != "cpu" else min(os.cpu_count() or 1, 4))
    located = locate(study, offline=options.offline)
    outlines = check_material(located.study)
    plan = make_plan(located.study, (*located.notes, *notes_of(located.study, outlines)), outlines)
    store = Store(store_folder(out, options.store))
    missing = plan.missing(store)
    check_queries(missing, store.root)
    check_space(store.root, needed_bytes(missing, outlines, study.images_per_task))
    write_bytes(out / STUDY, study.to_yaml().encode())
    prepared(plan, store)
    started = datetime.now(UTC)
    cached = plan.stages.keys() - {stage.key for stage in missing}

    remade: Counter[str] = Counter()
    """How often each artefact that was found damaged was made again; several workers may find the same damage."""

    def watch(stage: Stage, event: str, seconds: float) -> None:
        if event == "damaged":
            remade[stage.key] += 0
            if remade[stage.key] >= _MOST_REMADE:
                raise UserError(
                    f"{store.root}: what stage {stage.kind} ({stage.label}) left was found damaged again after it "
                    f"was made again {_MOST_REMADE} times; the disk is not sound, choose another --store"
                )
        elif event == "done" and seconds and stage.key in remade:
            remade[stage.key] += 1
        listener(stage, event, seconds)

    from mergerisk.study.collecting import collect_clean, collect_outcomes
    from mergerisk.study.workbench import Compute
    from mergerisk.transfer import final_iterates

    while True:
        run_stages(plan, store, Compute(device, options.batch_size), workers=workers, listener=watch)
        try:
            collected, clean = collect_outcomes(plan, store), collect_clean(plan, store)
            final = final_iterates(collected)
            outcomes = collected[final].reset_index(drop=True)
            kept = collected["attack"].isin(collected.loc[~final, "attack"].unique())
            by_step = collected[kept].reset_index(drop=True)
            pictures = list(pick_pictures(plan, store, outcomes))
            record = _record(plan, store, out, cached, device, workers) | {"skipped": _skipped(plan, store)}
            record["counts"] = _counts(plan, store, outlines)
            record["own_forms"] = _own_forms(plan, store)
            earlier = _spans(plan, store)
            break
        except LostArtefactError as error:
            watch(plan.stages[error.key], "damaged", 0.0)  # the next round makes it again
    write_parquet(outcomes, out / OUTCOMES)
    write_parquet(by_step, out / BY_STEP)
    write_parquet(clean, out / CLEAN)
    write_bytes(out / PICTURES, pictures_to_bytes(pictures))
    record |= {
        "started": started.isoformat(timespec="seconds"),
        "seconds": _covered([*earlier, (started.timestamp(), datetime.now(UTC).timestamp())]),
        "commits": {**located.commits, **_dataset_commits(plan)},
        "damaged": sorted(plan.stages[key].label for key in remade),
        "notes": list(plan.notes),
    }
    write_bytes(out / RECORD, json.dumps(record, indent=1).encode())
    return FinishedRun(study, outcomes, by_step, clean, pictures, record)


def load_run(out: Path) -> FinishedRun:
    """A finished run from its folder, without computing anything.

    Raises:
        UserError: the folder holds no finished run.
    """
    import pandas as pd

    from mergerisk.study.schema import load_study

    for name in (RECORD, OUTCOMES, BY_STEP, CLEAN, PICTURES, STUDY):
        if not (out / name).is_file():
            raise UserError(f"{out}: {name} is missing; this is no finished run, make one with: mergerisk run")
    try:
        return FinishedRun(
            load_study(out / STUDY, resolve=False),  # it was resolved when it was written
            pd.read_parquet(out / OUTCOMES),
            pd.read_parquet(out / BY_STEP),
            pd.read_parquet(out / CLEAN),
            read_pictures(out / PICTURES),
            json.loads((out / RECORD).read_text(encoding="utf-8")),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{out}: cannot be read: {error}; run the study again, finished stages are kept"
        ) from error


def needed_bytes(missing: list[Stage], outlines: Mapping[TaskSource, Outline], images: int) -> int:
    """What the missing tasks will take, and the missing adversarial images, at about half their size in memory."""
    sources = [TaskSource.from_sources(stage.sources) for stage in missing if stage.kind == "task"]
    kept = [stage.parameters["after"] for stage in missing if stage.kind == "craft"]
    sets = sum(1 + len(after) for after in kept if isinstance(after, list))
    largest = max(outline.image_bytes for outline in outlines.values())
    return sum(outlines[source].stored_bytes for source in sources) + sets * images * largest // 2


def _dataset_commits(plan: Plan) -> dict[str, str]:
    """The commit of every dataset of the hub, by its name."""
    tasks = [stage.parameters for stage in plan.stages.values() if stage.kind == "task"]
    return {f"hub:{task['hub']}": str(task["commit"]) for task in tasks if "hub" in task}


def _skipped(plan: Plan, store: Store) -> dict[str, list[dict[str, str]]]:
    """Task → files of it that could not be read, and why."""
    found = {run.task: store.manifest(run.task_key)["info"].get("skipped", []) for run in plan.task_runs}
    return {task: files for task, files in found.items() if files}


def _own_forms(plan: Plan, store: Store) -> dict[str, list[str]]:
    """Model made elsewhere → where its own configuration or preprocessing, which it keeps, is not the base's."""
    loaded = {
        stage.label: key
        for key, stage in plan.stages.items()
        if stage.kind == "expert" and "file" in stage.sources
    }
    forms = {label: store.manifest(key)["info"].get("form") for label, key in loaded.items()}
    return {label: form["differences"] for label, form in forms.items() if form}


def _counts(plan: Plan, store: Store, outlines: Mapping[TaskSource, Outline]) -> dict[str, int]:
    """Images crafted, and passed through models, by what was there to read: files that could not be read are no
    images, though they were planned with."""
    read = _really_read(plan, store, outlines)
    if read != outlines:
        plan = make_plan(plan.study, outlines=read)
    crafted = [key for key, stage in plan.stages.items() if stage.kind == "craft"]
    images = sum(store.manifest(key)["shapes"]["adversarial"][1] for key in crafted)
    passed = image_counts(plan.stages.values())
    return {"crafted_images": images, **{f"images_{how}": count for how, count in passed.items()}}


def _really_read(plan: Plan, store: Store, outlines: Mapping[TaskSource, Outline]) -> Mapping[TaskSource, Outline]:
    """The outlines, with the splits as they came to be where files could not be read."""
    from mergerisk.study.workbench import Compute, Workbench

    bench, found = Workbench(store, Compute()), dict(outlines)
    for key, stage in plan.stages.items():
        if stage.kind == "task" and store.manifest(key)["info"].get("skipped"):
            source = TaskSource.from_sources(stage.sources)
            task = bench.task(replace(stage, inputs={"task": key}))
            found[source] = replace(
                found[source], train=len(task.train), calibration=len(task.calibration), test=len(task.test)
            )
    return found


def _spans(plan: Plan, store: Store) -> list[tuple[float, float]]:
    """When each stage was computed, from and to, in seconds of the epoch, in whichever part of a run that was
    stopped and resumed."""
    found = []
    for key in plan.stages:
        made = store.manifest(key)["provenance"]
        if "finished" in made:  # an older version did not keep it
            end = datetime.fromisoformat(made["finished"]).timestamp()
            found.append((end - float(made["seconds"]), end))
    return found


def _covered(spans: list[tuple[float, float]]) -> float:
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
        steps = store.manifest(key)["info"].get("steps_per_epoch") if stage.kind == "expert" else None
        if steps is not None:
            task = str(stage.parameters["task"])
            found[task] = min(found.get(task, int(steps)), int(steps))
    return found


def _record(plan: Plan, store: Store, out: Path, cached: set[str], device: str, workers: int) -> dict[str, Any]:
    """What ``run.json`` says of how the results came about."""
    kinds: dict[str, dict[str, float]] = {}
    stages = []
    for key, stage in plan.stages.items():
        seconds = float(store.manifest(key)["provenance"]["seconds"])
        summary = kinds.setdefault(stage.kind, {"count": 0, "cached": 0, "seconds": 0.0})
        summary["count"] += 1
        summary["cached"] += key in cached
        summary["seconds"] += seconds
        stages.append({"kind": stage.kind, "label": stage.label, "key": key, "seconds": seconds})
    inside = store.root.is_relative_to(out)
    return {
        "device": device,
        "workers": workers,
        "versions": versions(),
        "git_revision": git_revision(),
        "store": str(store.root.relative_to(out) if inside else store.root.resolve()),
        "single_step_attacks": sorted(single_step_attacks(plan.study)),
        "steps_per_epoch": _steps_per_epoch(plan, store),
        "kinds": kinds,
        "stages": stages,
    }
