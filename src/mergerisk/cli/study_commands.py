"""``run``, ``plan``, ``validate``: a study, before and while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mergerisk.cli.common_options import (
    ADDRESS,
    DATA,
    DEVICE,
    DEVICES,
    EXECUTOR,
    JSON,
    LIMIT,
    LISTENER,
    OFFLINE,
    OUT,
    SEED,
    SET,
    SHARDS,
    STORE,
    STUDY,
    WORKERS,
)

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study.executors.hiring import Executor


@click.command()
@STUDY
@OUT
@STORE
@DATA
@SET
@SEED
@LIMIT
@OFFLINE
@DEVICE
@DEVICES
@WORKERS
@EXECUTOR
@ADDRESS
@SHARDS
@click.option("--force", is_flag=True, help="Replace the run of another study in DIR.")
@LISTENER
@JSON
def run(
    study: str,
    out: Path | None,
    store: Path | None,
    data: Path | None,
    settings: tuple[str, ...],
    seed: int | None,
    limit: int | None,
    offline: bool,
    device: str,
    devices: str | None,
    workers: int | None,
    executor: Executor,
    address: str | None,
    shards: int,
    force: bool,
    listeners: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Run STUDY (a shipped one, such as "starter", or a YAML file), or what is left of it.

    Running into the same folder resumes: everything finished is kept, whatever stopped the run. What happened and
    when is in run.log there.
    """
    from mergerisk import api
    from mergerisk.cli.speaking import speaking
    from mergerisk.cli.study_words import describe_result
    from mergerisk.cli.telling import tell
    from mergerisk.report.export import summary_to_json
    from mergerisk.study import load_study

    progress = speaking(stages=True)
    result = api.run(
        load_study(study, data=data, settings=settings),
        out,
        seed=seed,
        limit=limit,
        device=device,
        devices=devices,
        workers=workers,
        executor=executor,
        address=address,
        shards=shards,
        store=store,
        offline=offline,
        force=force,
        progress=progress,
        listeners=listeners,
    )
    tell(describe_result(result), json_file, lambda: summary_to_json(result.summary))


@click.command()
@STUDY
@OUT
@STORE
@DATA
@SET
@SEED
@LIMIT
@OFFLINE
@click.option("--measure", is_flag=True, help="Time the backbone for seconds, to tell how long it will take.")
@DEVICE
@DEVICES
@WORKERS
@EXECUTOR
@ADDRESS
@JSON
def plan(
    study: str,
    out: Path | None,
    store: Path | None,
    data: Path | None,
    settings: tuple[str, ...],
    seed: int | None,
    limit: int | None,
    offline: bool,
    measure: bool,
    device: str,
    devices: str | None,
    workers: int | None,
    executor: Executor,
    address: str | None,
    json_file: Path | None,
) -> None:
    """Show what running STUDY would do: stages, counts, what is there already, and the work left.

    With --measure, also how long that takes those who would compute, and how many of them would help.
    """
    from mergerisk import api
    from mergerisk.cli.study_words import describe_plan, outline
    from mergerisk.cli.telling import tell
    from mergerisk.report.export import found_to_json
    from mergerisk.study import load_study

    asked = load_study(study, data=data, settings=settings)
    made, kept = api.plan(asked, out, store=store, seed=seed, limit=limit, offline=offline)
    speeds = None
    if measure:
        speeds = api.measure(made, device, devices=devices, workers=workers, executor=executor, address=address)
    found = outline(made, kept, speeds)
    tell(describe_plan(made, found), json_file, lambda: found_to_json(found))


@click.command()
@STUDY
@DATA
@SET
@OFFLINE
@JSON
def validate(
    study: str, data: Path | None, settings: tuple[str, ...], offline: bool, json_file: Path | None
) -> None:
    """Check STUDY and every file it names, without running anything; everything that is wrong is said at once.

    STUDY is a study, or the file of an audit; of a recipe or of claims the file alone is checked.
    """
    from mergerisk.audit.validating import validate_file
    from mergerisk.cli.study_words import note_lines
    from mergerisk.cli.telling import tell
    from mergerisk.report.export import found_to_json

    found, notes = validate_file(study, data=data, offline=offline, settings=settings)
    words = "\n".join([f"{study}: valid; {found}", *note_lines(notes)])
    tell(words, json_file, lambda: found_to_json({"file": study, "is": found, "notes": notes}))
