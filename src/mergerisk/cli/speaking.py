"""How much a command says while it works: how far it is, nothing with ``--quiet``, every stage with ``--verbose``.
Every command has both options from here. Logging is configured here and nowhere else."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SILENCE = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "MLFLOW_LOGGING_LEVEL": "WARNING", "WANDB_SILENT": "true"}
"""Environment variables by which libraries are told to say nothing of downloads and of what they record."""

_SAID = "mergerisk.speaking"
"""Where a command's context keeps which of the options was given."""


def add_options(command: click.Command) -> None:
    """Give a command, or every command of a group, ``--quiet`` and ``--verbose``."""
    if isinstance(command, click.Group):
        for one in command.commands.values():
            add_options(one)
        return
    assert command.callback is not None
    command.params += [
        click.Option(["--quiet"], is_flag=True, help="Say nothing but results and errors."),
        click.Option(
            ["--verbose"],
            is_flag=True,
            help="Show every stage (of what works in stages), with its seconds, device and memory.",
        ),
    ]
    command.callback = _heard(command.callback)


def _heard(work: Callable[..., Any]) -> Callable[..., Any]:
    """What a command does, with as much said as its options say."""

    @wraps(work)
    def call(*given: Any, quiet: bool, verbose: bool, **named: Any) -> Any:
        if quiet and verbose:
            raise UserError("--quiet and --verbose exclude each other: leave one out")
        click.get_current_context().meta[_SAID] = (quiet, verbose)
        with ExitStack() as during:
            if quiet:
                during.enter_context(_silent_libraries())
            if verbose:
                during.enter_context(_logged())
            return work(*given, **named)

    return call


def speaking(*, stages: bool = False) -> bool:
    """Whether the command that is under way is to show how far it is, and to remark on what it finds.

    Args:
        stages: it works in stages, of which ``--verbose`` shows each instead.
    """
    quiet, verbose = click.get_current_context().meta[_SAID]
    return not (quiet or (verbose and stages))


@contextmanager
def _logged() -> Iterator[None]:
    """Have what the package logs on standard error."""
    logger, handler = logging.getLogger("mergerisk"), _StandardError()
    level = logger.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.levelno < logging.ERROR)  # errors are the command's own last lines
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Have libraries say nothing of their own, but where somebody has chosen what they say."""
    added = {name: value for name, value in _SILENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


class _StandardError(logging.Handler):
    """Whatever is standard error when something is said."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)
