"""How much a command says while it works: how far it is, nothing with ``--quiet``, every stage with ``--verbose``.
Logging is configured here and nowhere else."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SILENCE = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "MLFLOW_LOGGING_LEVEL": "WARNING", "WANDB_SILENT": "true"}
"""Environment variables by which libraries are told to say nothing of downloads and of what they record."""


def speaking(quiet: bool, verbose: bool = False) -> bool:
    """Whether to show how far the work is; what a run logs is shown instead with ``--verbose``, for as long as the
    command runs.

    Raises:
        UserError: both are given.
    """
    if quiet and verbose:
        raise UserError("--quiet and --verbose exclude each other: leave one out")
    context = click.get_current_context()
    if quiet:
        context.with_resource(_silent_libraries())
    if verbose:
        context.with_resource(_logged())
    return not (quiet or verbose)


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
