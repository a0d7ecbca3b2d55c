"""Options that several commands share, and codes that they exit with."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

EXIT_FAULT, EXIT_MISTAKE, EXIT_GATE, EXIT_INTERRUPTED = 1, 2, 3, 130

SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A value instead of the file's, as budgets.epsilon=[2/255] or merging.0=ties; repeatable.",
)
JSON = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the same as JSON; - prints it instead of the words.",
)

LISTENER = click.option(
    "--listener",
    "listeners",
    multiple=True,
    metavar="NAME",
    help="Have it told what happens, as mlflow or wandb; repeatable. See: mergerisk list listeners.",
)


def _studies(_context: click.Context, _argument: click.Parameter, begun: str) -> list[CompletionItem]:
    """What a shell may complete a study to: a shipped one, or a file."""
    from mergerisk.study.shipped import shipped_studies

    names = [CompletionItem(name) for name in shipped_studies() if name.startswith(begun)]
    return [*names, CompletionItem(begun, type="file")]


STUDY = click.argument("study", shell_complete=_studies)
SEED = click.option("--seed", type=int, help="Replace the study's seeds by this one.")
LIMIT = click.option("--limit", type=int, metavar="N", help="Attack at most N images per task.")
OUT = click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/NAME]", metavar="DIR"
)
DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that STUDY's relative paths start from.  [default: STUDY's own]",
)
STORE = click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of artefacts, or s3://BUCKET/PREFIX, to share between studies.  [default: OUT/store]",
)

OFFLINE = click.option("--offline", is_flag=True, help="Take what comes from the hub from its cache only.")

DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="auto (a GPU if there is one), cpu, cuda, cuda:N or mps.",
)
WORKERS = click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes to compute with.  [default: one per core, at most 4; one on a GPU; all of a cluster]",
)
DEVICES = click.option(
    "--devices",
    metavar="LIST",
    help="One worker on each, as 0,1 (CUDA devices), instead of --device and --workers.",
)
EXECUTOR = click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Compute on this machine, or on a Ray cluster.",
)
SHARDS = click.option(
    "--shards",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="Parts in which crafting and evaluation of many images is spread over workers.",
)
ADDRESS = click.option(
    "--address", metavar="HOST:PORT", help="The Ray cluster's.  [default: one of this machine's own]"
)
