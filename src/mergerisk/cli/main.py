"""The ``mergerisk`` command.

Everything heavy is imported inside the commands: ``--help`` and ``list`` answer without loading PyTorch.
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from mergerisk._version import __version__
from mergerisk.cli.attack_commands import attack
from mergerisk.cli.audit_commands import audit
from mergerisk.cli.check_commands import check
from mergerisk.cli.checkpoint_commands import convert, merge
from mergerisk.cli.common_options import EXIT_FAULT, EXIT_INTERRUPTED, EXIT_MISTAKE
from mergerisk.cli.doctor_commands import doctor
from mergerisk.cli.environment import mute, prepare, refusal
from mergerisk.cli.found_commands import runs, show
from mergerisk.cli.init_commands import init
from mergerisk.cli.leaderboard_commands import leaderboard
from mergerisk.cli.list_commands import list_
from mergerisk.cli.recommend_commands import recommend
from mergerisk.cli.result_commands import causes, claims, compare, prices, report
from mergerisk.cli.schema_commands import schema
from mergerisk.cli.speaking import add_options
from mergerisk.cli.store_commands import store_
from mergerisk.cli.study_commands import plan, run, validate
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mergerisk")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:  # read by `main`
    """How easily do adversarial examples, made on a model an attacker can download, fool a merged model?

    Start with: mergerisk run demo, a first result in a minute
    """


for _command in (
    init,
    run,
    plan,
    validate,
    audit,
    recommend,
    merge,
    convert,
    attack,
    check,
    runs,
    show,
    report,
    compare,
    claims,
    causes,
    prices,
    leaderboard,
    store_,
    list_,
    doctor,
    schema,
):
    cli.add_command(_command)
add_options(cli)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error is one line, and a traceback only with ``--debug``.

    Exit codes: 0 done, 1 our fault, 2 the user's mistake, 3 a gate failed, 130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    resumes = (
        "; run again to resume: everything finished is kept" if {"run", "audit", "recommend"} & set(given) else ""
    )
    try:
        prepare()
        # `--debug` may stand anywhere.
        cli.main([word for word in given if word != "--debug"], prog_name="mergerisk", standalone_mode=False)
        sys.stdout.flush()  # what cannot be written is found here, and not when the interpreter ends
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail([_one_line(error)], EXIT_MISTAKE, debug)
    except (click.Abort, KeyboardInterrupt):
        _fail([f"interrupted{resumes}"], EXIT_INTERRUPTED, debug)
    except UserError as error:
        _fail(error.faults, EXIT_MISTAKE, debug)
    except BrokenPipeError:
        mute(1)  # the reader of a pipe went away, as `head` does
        mute(2)
        sys.exit(EXIT_FAULT)
    except Exception as error:
        refused = refusal(error)
        if refused is not None:
            _fail([f"{refused}{resumes}"], EXIT_MISTAKE, debug)
        what = f"{type(error).__name__}: {_last_line(error)}"
        _fail([f"internal error, please report it: {what} (--debug shows the traceback)"], EXIT_FAULT, debug)


def _one_line(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    hint = f"; see: {context.command_path} --help" if context is not None else ""
    return f"{error.format_message().splitlines()[0].rstrip('.')}{hint}"


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1]


def _fail(messages: Iterable[str], code: int, debug: bool) -> None:
    try:
        if debug:
            traceback.print_exc()
        for message in messages:
            click.echo(f"mergerisk: {' '.join(message.splitlines())}", err=True)
    except OSError:
        mute(2)
    try:
        sys.stdout.flush()
    except OSError:
        mute(1)
    sys.exit(code)
