"""``runs``, ``show``: what lies on the disk."""

from __future__ import annotations

from pathlib import Path

import click

from mergerisk.cli.common_options import JSON
from mergerisk.cli.telling import tell


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@JSON
def runs(folder: Path, json_file: Path | None) -> None:
    """List the runs in FOLDER, finished and not, the latest last.  [default: runs]"""
    from mergerisk.cli.found_words import describe_runs
    from mergerisk.report.export import found_to_json
    from mergerisk.study.found_runs import find_runs

    found = find_runs(folder)
    tell(describe_runs(folder, found), json_file, lambda: found_to_json({"runs": found}))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@JSON
def show(folder: Path, json_file: Path | None) -> None:
    """Print what the finished run in FOLDER ended with; nothing is computed again, nothing is written."""
    from mergerisk import api
    from mergerisk.cli.study_words import describe_result
    from mergerisk.report.export import summary_to_json

    result = api.load_run(folder)
    tell(describe_result(result), json_file, lambda: summary_to_json(result.summary))
