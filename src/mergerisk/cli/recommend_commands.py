"""``recommend``: which merge, and what around it."""

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
    LISTENER,
    OFFLINE,
    SET,
    STORE,
    WORKERS,
)

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study.executors.hiring import Executor


@click.command()
@click.argument("file")
@click.option(
    "--time", "limit", metavar="TIME", help="That it may take, as 30m.  [default: 30m, or none with --trials]"
)
@click.option("--trials", type=int, metavar="N", help="Try at most N recipes.")
@click.option("--out", type=click.Path(), help="The folder to write.  [default: recommended/NAME]", metavar="DIR")
@STORE
@DATA
@SET
@click.option("--seed", type=int, default=0, show_default=True, help="Of the search.")
@OFFLINE
@DEVICE
@DEVICES
@WORKERS
@EXECUTOR
@ADDRESS
@click.option("--force", is_flag=True, help="Replace the search of another study in DIR.")
@LISTENER
@JSON
def recommend(
    file: str,
    limit: str | None,
    trials: int | None,
    out: str | None,
    store: Path | None,
    data: Path | None,
    settings: tuple[str, ...],
    seed: int,
    offline: bool,
    device: str,
    devices: str | None,
    workers: int | None,
    executor: Executor,
    address: str | None,
    force: bool,
    listeners: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Find the best trades of accuracy against risk for the study in FILE ("starter", or a YAML file).

    Merging methods, their hyper-parameters and defenses are searched on held-out images, against attackers who
    know of every defense; the best are measured once, on attacked images that the search never saw, and written
    as files that "mergerisk run" takes. The same command again goes on where it was stopped.
    """
    from mergerisk.recommending.trials import check_installed

    check_installed()
    from mergerisk.cli.recommend_words import describe_recommendation
    from mergerisk.cli.speaking import speaking
    from mergerisk.cli.telling import tell
    from mergerisk.recommending.running import checked_limit
    from mergerisk.recommending.running import recommend as run_recommend
    from mergerisk.recommending.writing import to_json
    from mergerisk.study import load_study

    progress = speaking(stages=True)
    if limit is None and trials is None:
        limit = "30m"
    checked_limit(limit, trials, seed, workers)  # before anything is read
    made = run_recommend(
        load_study(file, data=data, settings=settings),
        out,
        time=limit,
        trials=trials,
        seed=seed,
        device=device,
        devices=devices,
        workers=workers,
        executor=executor,
        address=address,
        store=store,
        offline=offline,
        force=force,
        progress=progress,
        listeners=listeners,
    )
    tell(describe_recommendation(made), json_file, lambda: to_json(made))
