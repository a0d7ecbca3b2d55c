"""Files and folders that are on the disk before they count, and that exist whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import inspect
import os
import secrets
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_SPARE_BYTES = 2**20
"""For a new folder's small files."""

KEPT_FREE = 64 * 2**20
"""Bytes that a study leaves free besides what it needs."""

_NO_LOCKS = "the file system has no locks"

_NO_STAND_IN: dict[str, Any] = (
    {"fallback_to_soft": False} if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters else {}
)

_ROOM = "free space or choose another --out"


def refuse_special(path: Path) -> None:
    """See that a path is no pipe, socket or device: reading one may never end.

    Raises:
        UserError: it is.
        OSError: it cannot be looked at.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path}: a pipe, a socket or a device, no file; move it away")


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock, which the system frees if this process dies.

    Where the file system has none, nothing stands in for it: a file that says that somebody is there would outlast
    whoever made it.

    Args:
        file: that is locked; made if it does not exist.
        wait: for another holder, instead of giving up at once.

    Yields:
        Whether it was obtained; always, when waiting.

    Raises:
        OSError: the file cannot be made, or the file system has no locks.
    """
    lock = FileLock(file, **_NO_STAND_IN)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    except NotImplementedError as error:  # which older versions of filelock raise
        raise OSError(errno.ENOSYS, _NO_LOCKS) from error
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}:
            raise OSError(error.errno, _NO_LOCKS) from error
        raise
    try:
        yield True
    finally:
        lock.release()


def flush(place: Path) -> None:
    """Have the system write a file, or a folder's list of files, to the disk."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, as far as they are not there, such that they outlast a loss of power.

    Raises:
        OSError: it cannot be made, or something else is in its place.
    """
    if not path.is_dir():
        if path.parent != path:
            make_folder(path.parent)
        path.mkdir(exist_ok=True)
        flush(path.parent)


def is_full(error: OSError) -> bool:
    """Whether writing failed for want of room."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def flushed(path: Path, *, new: bool = False) -> Iterator[BinaryIO]:
    """A file, open for writing, that is on the disk at the end.

    Args:
        path: the file; what it held is lost.
        new: refuse one that exists, or a link under its name.

    Raises:
        OSError: it cannot be written, or exists.
    """
    with path.open("xb" if new else "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_flushed(path: Path, content: bytes | str) -> None:
    """Write a file within a folder that is not published yet; text as UTF-8.

    Raises:
        OSError: it cannot be written.
    """
    with flushed(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside ``path``, open for writing, that takes its place at the end; removed if anything fails.

    Its name cannot be foreseen and must not exist: what else lies in the folder, a symbolic link under a guessed
    name for one, is neither followed nor overwritten.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with flushed(temporary, new=True) as file:
            yield file
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        full = "the disk is full; free space and run again"
        what = full if is_full(error) else f"cannot be written: {error.strerror}"
        raise UserError(f"{path}: {what}") from error
    finally:
        temporary.unlink(missing_ok=True)  # gone already, where it took its place


@contextmanager
def new_folder(out: Path, needed: int) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block ends, and is gone if it ends with an error.

    Killing the process leaves ``.NAME.unfinished``, which the next one that writes ``out`` clears away.

    Args:
        out: absent, or a folder that may be replaced.
        needed: bytes that are going to be written.

    Raises:
        UserError: the place cannot be written to or has too little room, or another process is writing ``out``.
    """
    out = Path(os.path.realpath(out))
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < needed + _SPARE_BYTES:
            raise UserError(
                f"{out.parent}: {mebibytes(free)} free, {mebibytes(needed + _SPARE_BYTES)} needed; {_ROOM}"
            )
        unfinished.mkdir(exist_ok=True)
        with _locked(unfinished):
            try:
                _clear(unfinished)
                yield unfinished
                _flush_folders(unfinished)
                _replace(out, unfinished)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
    except OSError as error:
        if is_full(error):
            raise UserError(
                f"{out.parent}: the disk is full; {mebibytes(needed + _SPARE_BYTES)} needed; {_ROOM}"
            ) from error
        raise UserError(f"{out}: cannot be written: {error.strerror or error}; choose another --out") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; freed by the system if this one dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another process is writing there; wait, or choose another --out"
            ) from error
        yield
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _replace(out: Path, made: Path) -> None:
    if out.exists() and any(out.iterdir()):
        former = out.with_name(f".{out.name}.replaced")
        shutil.rmtree(former, ignore_errors=True)
        out.rename(former)
        made.rename(out)
        shutil.rmtree(former, ignore_errors=True)
    else:
        made.rename(out)
    flush(out.parent)


def _flush_folders(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            flush(path)
    flush(folder)


def mebibytes(count: float, digits: int = 0) -> str:
    """A number of bytes, for people."""
    return f"{count / 2**20:,.{digits}f} MiB"
