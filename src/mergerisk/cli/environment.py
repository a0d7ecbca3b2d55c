"""What a command stands on and may find missing: its streams, a folder to work in, room on the disk, memory."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from mergerisk.errors import UserError

_NOT_OURS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ENAMETOOLONG,
        errno.EMFILE,
        errno.ENFILE,
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.ESTALE,
    }
)
"""What the system refuses on its own account, whatever the program is."""

_LONGEST_NAME = 80
"""Characters of a file's name in a message; the system takes 255 of each folder's."""


def prepare() -> None:
    """Give streams that were closed a place to go, and see that there is a folder to work in.

    Raises:
        UserError: the current folder was deleted: relative paths mean nothing, and libraries fail to load.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # as `>&-` leaves it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # it lasts
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UserError("the current folder does not exist any more; change to one that does") from error


def mute(stream_number: int) -> None:
    """Have what is still buffered for a stream that takes no more go nowhere when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream_number)
    os.close(null)


def refusal(error: Exception) -> str | None:
    """What the system refused, in a line, if that is what went wrong: nobody's mistake."""
    if isinstance(error, OSError) and error.errno in _NOT_OURS:
        name = (
            os.fsdecode(error.filename)
            if isinstance(error.filename, str | bytes)
            else "a file, or standard output"
        )
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}…"
        return f"{name}: {os.strerror(error.errno).lower()}"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "memory ran out; free some, allow more, or take fewer --workers"
    return None
