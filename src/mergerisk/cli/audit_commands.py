"""``audit``: a merged model before its release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mergerisk.cli.common_options import (
    ADDRESS,
    DEVICE,
    DEVICES,
    EXECUTOR,
    EXIT_GATE,
    JSON,
    LIMIT,
    LISTENER,
    OFFLINE,
    SET,
    SHARDS,
    STORE,
    WORKERS,
)
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from mergerisk.study.executors.hiring import Executor


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The folder to write.  [default: audits/NAME]", metavar="DIR"
)
@SET
@JSON
@STORE
@LIMIT
@OFFLINE
@DEVICE
@DEVICES
@WORKERS
@EXECUTOR
@ADDRESS
@SHARDS
@click.option("--force", is_flag=True, help="Replace what another audit left in DIR.")
@LISTENER
@click.option(
    "--fail-if",
    "gates",
    multiple=True,
    metavar="GATE",
    help="Exit with 3 if it holds, as 'asr > 50% at 4/255'; repeatable.",
)
@click.option(
    "--verify",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Audit nothing: check whether files are those that were audited into DIR.",
)
def audit(
    file: Path | None,
    out: Path | None,
    settings: tuple[str, ...],
    json_file: Path | None,
    store: Path | None,
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
    gates: tuple[str, ...],
    verify: Path | None,
) -> None:
    """Audit a merged model, or choose the safest way to merge, as the YAML file FILE says.

    Exits with 3 if a gate on what is to be released fails, so that it can stand in a release pipeline.

    With --verify, files are compared by their SHA-256 with those that were audited into DIR, where the audit found
    them, or where FILE says that they are now. Exits with 3 if they differ.
    """
    if verify is not None:
        _verify(verify, file, json_file)
        return
    if file is None:
        raise UserError("give the audit's file: mergerisk audit FILE; or check one: mergerisk audit --verify DIR")
    from mergerisk.audit import audit as run_audit
    from mergerisk.audit import load_audit
    from mergerisk.audit.writing import to_json
    from mergerisk.cli.audit_words import describe_audit
    from mergerisk.cli.speaking import speaking
    from mergerisk.cli.telling import tell

    progress = speaking(stages=True)
    result = run_audit(
        load_audit(file, fail_if=gates, settings=settings),
        out,
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
    tell(describe_audit(result), json_file, lambda: to_json(result.verdict))
    if result.verdict.failed:
        sys.exit(EXIT_GATE)


def _verify(folder: Path, file: Path | None, json_file: Path | None) -> None:
    """Raises:
    UserError: an option is given that only running an audit has, or there is no audit to check against.
    """
    from mergerisk.audit.verifying import verify
    from mergerisk.cli.audit_words import describe_verification
    from mergerisk.cli.telling import tell
    from mergerisk.report.export import found_to_json

    context = click.get_current_context()
    for name in (
        "out",
        "store",
        "limit",
        "offline",
        "device",
        "devices",
        "workers",
        "executor",
        "address",
        "shards",
        "force",
        "listeners",
        "gates",
        "settings",
    ):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = {"gates": "fail-if", "listeners": "listener", "settings": "set"}.get(name, name)
            raise UserError(f"--verify runs nothing: leave out --{option}")
    found = verify(folder, file)
    tell(describe_verification(found), json_file, lambda: found_to_json(found))
    if not found.agrees:
        sys.exit(EXIT_GATE)
