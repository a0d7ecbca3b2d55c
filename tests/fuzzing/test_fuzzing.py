"""Spoiled files of every format end in a line or are read: no other error, no hang, no gigabytes.

Longer, and with other draws: ``python -m tests.fuzzing.test_fuzzing SECONDS [SEED [WORD]]``, of all formats or those
with the word in their name, prints what it tried and keeps what broke something in ``fuzzing-findings``.
"""

from __future__ import annotations

import hashlib
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mergerisk.errors import UserError
from tests.fuzzing.mutations import spoiled
from tests.fuzzing.targets import Target, targets

if TYPE_CHECKING:
    from collections.abc import Iterator

PER_FORMAT = 25
SECONDS = 20
"""That one file may take, on a busy machine."""
MEMORY = 2**30
"""Bytes that a format may add to the process."""


class HangError(Exception):
    """A file took too long."""


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    def late(_: int, __: object) -> None:
        raise HangError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def broken_by(target: Target, content: bytes, folder: Path) -> str | None:
    """What a reader does with a content that it should not do; ``None`` if it reads it, or says a line."""
    if not (folder / target.file).exists():  # the reader moved it aside
        target.make(folder)
    (folder / target.file).write_bytes(content)
    try:
        with _within(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("error")
            target.read(folder)
    except UserError as error:
        return None if all(len(str(line).splitlines()) == 1 for line in error.faults) else f"not a line: {error}"
    except MemoryError:
        return "memory ran out"
    except Exception:
        return traceback.format_exc()
    return None


def _prepared(target: Target, folder: Path) -> bytes:
    target.make(folder)
    sound = (folder / target.file).read_bytes()
    assert broken_by(target, sound, folder) is None
    target.read(folder)  # it is sound: nothing is said of it
    return sound


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_a_spoiled_file_is_read_or_is_a_line(target: Target, tmp_path: Path) -> None:
    sound, draws = _prepared(target, tmp_path), random.Random(target.name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(PER_FORMAT):
        content = spoiled(sound, draws, is_text=target.is_text)
        found = broken_by(target, content, tmp_path)
        assert found is None, f"{content!r}\n{found}"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def main(seconds: float, seed: int, word: str) -> None:
    """Try formats in turn for some time."""
    chosen = [target for target in targets() if word in target.name]
    findings, tried = Path("fuzzing-findings"), dict.fromkeys((target.name for target in chosen), 0)
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as made:
        prepared = {}
        for target in chosen:
            folder = Path(made) / target.name
            folder.mkdir()
            prepared[target.name] = (
                target,
                folder,
                _prepared(target, folder),
                random.Random(f"{target.name} {seed}"),
            )
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, (target, folder, sound, draws) in prepared.items():
                content = spoiled(sound, draws, is_text=target.is_text)
                found = broken_by(target, content, folder)
                tried[name] += 1
                if found is not None and found.splitlines()[-1] not in seen:
                    seen.add(found.splitlines()[-1])
                    findings.mkdir(exist_ok=True)
                    (findings / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}").write_bytes(content)
                    print(name, found.splitlines()[-1], sep=": ", flush=True)
    print(f"{sum(tried.values()):,} files in {seconds:.0f} s, {len(seen)} findings: {tried}")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, *sys.argv[3:] or [""])
