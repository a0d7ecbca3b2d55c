"""``run``, ``plan``, ``validate``: a study, before and while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mergerisk.cli.common_options import DATA, DEVICE, LIMIT, OFFLINE, OUT, SEED, STORE, STUDY, WORKERS

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@STUDY
@OUT
@STORE
@DATA
@SEED
@LIMIT
@OFFLINE
@DEVICE
@WORKERS
@click.option("--force", is_flag=True, help="Replace the run of another study in DIR.")
def run(
    study: str,
    out: Path | None,
    store: Path | None,
    data: Path | None,
    seed: int | None,
    limit: int | None,
    offline: bool,
    device: str,
    workers: int | None,
    force: bool,
) -> None:
    """Run STUDY (a shipped one, such as "starter", or a YAML file), or what is left of it.

    Running into the same folder resumes: everything finished is kept, whatever stopped the run.
    """
    from mergerisk import api
    from mergerisk.cli.study_words import describe_result

    result = api.run(
        study,
        out,
        seed=seed,
        limit=limit,
        device=device,
        workers=workers,
        store=store,
        data=data,
        offline=offline,
        force=force,
    )
    click.echo(describe_result(result))


@click.command()
@STUDY
@OUT
@STORE
@DATA
@SEED
@LIMIT
@OFFLINE
@click.option("--measure", is_flag=True, help="Time the backbone for seconds, to tell how long it will take.")
@DEVICE
def plan(
    study: str,
    out: Path | None,
    store: Path | None,
    data: Path | None,
    seed: int | None,
    limit: int | None,
    offline: bool,
    measure: bool,
    device: str,
) -> None:
    """Show what running STUDY would do: stages, counts, what is there already, and the work left."""
    from mergerisk import api
    from mergerisk.cli.study_words import describe_plan

    made = api.plan(study, out, store=store, data=data, seed=seed, limit=limit, offline=offline)
    click.echo(describe_plan(*made, speeds=api.measure(made[0], device) if measure else None))


@click.command()
@STUDY
@DATA
@OFFLINE
def validate(study: str, data: Path | None, offline: bool) -> None:
    """Check STUDY and every file it names, without running anything; everything that is wrong is said at once.

    STUDY is a study, or the file of an audit; of a recipe or of claims the file alone is checked.
    """
    from mergerisk.audit.validating import validate_file
    from mergerisk.cli.study_words import note_lines

    found, notes = validate_file(study, data=data, offline=offline)
    click.echo(f"{study}: valid; {found}")
    for line in note_lines(notes):
        click.echo(line)
