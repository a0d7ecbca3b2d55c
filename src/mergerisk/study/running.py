"""Run a study: preflight, stages, outcomes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mergerisk.store import bucket_named, open_store
from mergerisk.study.dividing import divided
from mergerisk.study.examples import pick_pictures
from mergerisk.study.executors.events import RunStarted, nobody
from mergerisk.study.executors.hiring import BATCH_SIZE, Executor, workforce
from mergerisk.study.files import write_bytes
from mergerisk.study.finished import STUDY, FinishedRun, write_run
from mergerisk.study.gradient_pictures import pick_gradients
from mergerisk.study.kinds.ask import Ask
from mergerisk.study.kinds.craft import Craft
from mergerisk.study.kinds.load_task import LoadTask
from mergerisk.study.locating import locate
from mergerisk.study.notes import notes_of
from mergerisk.study.planning import make_plan
from mergerisk.study.preflight import (
    check_material,
    check_output,
    check_queries,
    check_same_study,
    check_space,
)
from mergerisk.study.record import covered, record_of
from mergerisk.study.rounds import run_and_collect
from mergerisk.study.tables.catalogue import ALWAYS, collect_further

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mergerisk.store import Store
    from mergerisk.study.executors.events import Listener
    from mergerisk.study.executors.hiring import Workforce
    from mergerisk.study.planning import Plan
    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage
    from mergerisk.tasks.outline import Outline
    from mergerisk.tasks.source import TaskSource


@dataclass(frozen=True)
class Options:
    """How a study is run; nothing here changes what it computes.

    Attributes:
        store: folder of artefacts; ``store`` in the run's folder by default. Studies may share one. Or a bucket,
            ``s3://bucket/prefix``, of which the run's folder holds copies.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        devices: one worker on each, as ``0,1``; instead of ``device`` and ``workers``.
        workers: processes; None for one per core, four at most, or one on a GPU. On a cluster, stages at
            once; None for as many as it has room for.
        executor: ``local``, or ``ray`` for a cluster.
        address: of the cluster; None for one on this machine.
        shards: parts in which stages over many images are made, at most one per batch.
        batch_size: images at a time.
        offline: take what comes from a hub from the cache only.
        force: replace the run of another study.
    """

    store: Path | None = None
    device: str = "auto"
    devices: str | None = None
    workers: int | None = None
    executor: Executor = "local"
    address: str | None = None
    shards: int = 1
    batch_size: int = BATCH_SIZE
    offline: bool = False
    force: bool = False


def store_folder(out: Path, store: Path | None) -> Path:
    """The folder of a run's store: its own unless another is named; that of copies where a bucket is."""
    return out / "store" if store is None or bucket_named(store) else store


def run_study(
    study: Study,
    out: Path,
    options: Options,
    *,
    prepared: Callable[[Plan, Store], None] = lambda *_: None,
    listener: Listener = nobody,
) -> FinishedRun:
    """Make what is missing, then collect the outcomes into ``out``.

    Args:
        study: a resolved study.
        out: the run's folder.
        options: how to run it.
        prepared: called once everything is checked, before the first stage.
        listener: told what happens; what it raises ends the run.

    Raises:
        UserError: the study, a file or an option is at fault; raised before any training where it can be known.
    """
    check_output(out)
    if not options.force:
        check_same_study(study, out, out / STUDY)
    with workforce(
        executor=options.executor,
        address=options.address,
        device=options.device,
        devices=options.devices,
        workers=options.workers,
        batch_size=options.batch_size,
    ) as crew:
        return _run_with(crew, study, out, options, prepared, listener)


def _run_with(
    crew: Workforce,
    study: Study,
    out: Path,
    options: Options,
    prepared: Callable[[Plan, Store], None],
    listener: Listener,
) -> FinishedRun:
    """The same, with those who make the stages at hand."""
    from mergerisk.study.tables.gathered import Gathered

    located = locate(study, offline=options.offline)
    outlines = check_material(located.study)
    plan = make_plan(located.study, (*located.notes, *notes_of(located.study, outlines)), outlines)
    store = open_store(store_folder(out, options.store), bucket_named(options.store))
    missing = plan.missing(store)
    check_queries(missing, store.root, apart=options.executor == "ray" and store.bucket is not None)
    check_space(store.root, needed_bytes(missing, outlines, study.images_per_task))
    write_bytes(out / STUDY, study.to_yaml().encode())
    spread = divided(plan, store, options.shards, options.batch_size)
    prepared(spread, store)
    listener(RunStarted(study, out, spread, store, crew.device, crew.workers))
    started = datetime.now(UTC)
    cached = plan.stages.keys() - {stage.key for stage in missing}

    def collect() -> tuple[FinishedRun, list[tuple[float, float]]]:
        gathered = Gathered(plan, store)
        outcomes, by_step, clean = (table.collect(gathered, ()) for table in ALWAYS)
        pictures = list(pick_pictures(plan, store, outcomes))
        record, spans = record_of(plan, store, outlines, out=out, cached=cached, crew=crew)
        further = tuple(collect_further(gathered))
        causes = next((kept.rows for kept in further if kept.declared.name == "causes"), None)
        gradients = pick_gradients(plan, store, outcomes, causes)
        return FinishedRun(study, outcomes, by_step, clean, pictures, record, further, gradients), spans

    (found, earlier), remade = run_and_collect(spread, store, crew.hire, collect, listener=listener)
    record = found.record | {
        "started": started.isoformat(timespec="seconds"),
        "seconds": covered([*earlier, (started.timestamp(), datetime.now(UTC).timestamp())]),
        "commits": {**located.commits, **found.record["commits"]},
        "damaged": sorted(spread.stages[key].label for key in remade),
        "notes": list(plan.notes),
    }
    finished = replace(found, record=record)
    write_run(finished, out)
    return finished


def needed_bytes(missing: list[Stage], outlines: Mapping[TaskSource, Outline], images: int) -> int:
    """What the missing tasks will take, the missing adversarial images, at about half their size in memory, and
    the pictures (gradients, say) that models are asked for, which do not get smaller."""
    sources = [stage.source for stage in missing if isinstance(stage, LoadTask)]
    sets = sum(1 + len(stage.after) for stage in missing if isinstance(stage, Craft))
    asked = sum(
        (stage.last - stage.first) * stage.probe.pictures_per_image for stage in missing if isinstance(stage, Ask)
    )
    largest = max(outline.image_bytes for outline in outlines.values())
    return (
        sum(outlines[source].stored_bytes for source in sources) + sets * images * largest // 2 + asked * largest
    )
