"""A command whose surroundings fail: closed or full streams, a folder that is gone, refusals of the system."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from mergerisk.cli.environment import refusal
from mergerisk.cli.main import main


def _shell(command: str) -> subprocess.CompletedProcess[str]:
    """What a shell says of a line in which ``mergerisk`` is this installation's."""
    line = command.replace("mergerisk", f"'{sys.executable}' -m mergerisk")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        pytest.param("mergerisk list attacks >&-", 0, "", id="closed"),
        pytest.param(
            "mergerisk list attacks >/dev/full",
            2,
            "mergerisk: a file, or standard output: no space left on device\n",
            id="full",
        ),
        pytest.param("mergerisk list attacks | true; exit ${PIPESTATUS[0]}", 1, "", id="reader gone"),
        pytest.param("mergerisk list nothing 2>/dev/full", 2, "", id="errors full"),
        pytest.param("mergerisk list nothing 2>&-", 2, "", id="errors closed"),
        pytest.param(
            'cd "$(mktemp -d)" && rmdir "$PWD" && mergerisk plan starter',
            2,
            "mergerisk: the current folder does not exist any more; change to one that does\n",
            id="no folder",
        ),
    ],
)
def test_streams_and_folders_that_fail_are_a_line_or_silence(command: str, code: int, said: str) -> None:
    done = _shell(command)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_name_that_no_folder_can_have_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["claims", "poster", "--json", "x" * 300])
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert len(line) < 150
    assert "file name too long" in line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: permission denied"),
        (OSError(errno.EMFILE, "Too many open files"), "a file, or standard output: too many open files"),
        (MemoryError(), "memory ran out"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            "memory ran out",
        ),
    ],
)
def test_what_the_system_refuses_is_not_called_our_fault(error: Exception, said: str) -> None:
    found = refusal(error)
    assert found is not None
    assert found.startswith(said)


def test_our_faults_are_not_blamed_on_the_system() -> None:
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file or directory", "ours")) is None
    assert refusal(RuntimeError("shapes differ")) is None
