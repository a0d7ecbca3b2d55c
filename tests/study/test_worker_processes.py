"""Workers of one machine: forked from one process, and what is said of one that is gone."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from mergerisk.errors import UserError
from mergerisk.store import Store
from mergerisk.study.executors.local import _groups, _WorkerGroup
from mergerisk.study.executors.worker import ENVIRONMENT
from tests.study.toy_stages import Toy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.study.executors.local import _WorkerProcess
    from mergerisk.study.stage import Result
    from mergerisk.study.workbench import Workbench


@contextmanager
def started(store: Store, count: int = 2) -> Iterator[list[_WorkerProcess]]:
    group = _WorkerGroup(store, ["cpu"] * count, 8)
    try:
        yield group.workers
    finally:
        group.close()


def process_of(worker: _WorkerProcess, number: int) -> int:
    """Its process, as the outcome of a stage tells it."""
    stage = Toy(label="number", number=number)
    worker.ask(stage, wait=False)
    outcome = worker.answer(stage)
    assert outcome.status == "done"
    return int(outcome.where.rpartition("/")[2])


def test_only_workers_of_the_processor_are_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert _groups(["cpu"] * 3) == [["cpu"] * 3]
    assert _groups(["cuda:0", "cuda:1"]) == [["cuda:0"], ["cuda:1"]]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _groups(["cpu"] * 2) == [["cpu"], ["cpu"]]


def test_what_is_imported_before_the_fork_begins_no_thread() -> None:
    """A fork takes none along, and so never the locks that it holds."""
    imports = "import os, torch, transformers.modeling_utils, mergerisk.study.workbench"
    command = [sys.executable, "-c", f"{imports}; print(len(os.listdir('/proc/self/task')))"]
    assert (
        subprocess.run(command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, check=True).stdout == b"1\n"
    )


def test_a_killed_worker_is_named_by_its_status_and_the_other_goes_on(tmp_path: Path) -> None:
    with started(Store(tmp_path)) as (one, other):
        stage = Toy(label="lost", number=3)
        os.kill(process_of(one, 1), signal.SIGKILL)
        one.ask(stage, wait=False)
        with pytest.raises(
            UserError, match=r"^a worker ended unexpectedly \(exit status -9\) in stage toy \(lost\)"
        ):
            one.answer(stage)
        assert process_of(other, 2)


@dataclass(frozen=True, kw_only=True)
class Busy(Toy):
    """Computes for half a second."""

    kind: ClassVar[str] = "busy"

    def run(self, bench: Workbench) -> Result:
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
        return super().run(bench)


def test_the_time_of_workers_counts_as_their_run_s(tmp_path: Path) -> None:
    """For whoever asks the system, as `time mergerisk run` does."""

    def ended() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = ended()
    with started(Store(tmp_path)) as workers:
        for number, worker in enumerate(workers):
            busy = Busy(label="busy", number=number)
            worker.ask(busy, wait=False)
            assert worker.answer(busy).status == "done"
        fields = Path(f"/proc/{workers[0]._group._process.pid}/stat").read_text().rpartition(")")[2].split()
        forked_from = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    assert ended() - before > forked_from + 0.8


@pytest.mark.parametrize("count", [1, 2])
def test_workers_do_not_outlive_the_process_that_they_are_forked_from(tmp_path: Path, count: int) -> None:
    with started(Store(tmp_path), count) as workers:
        processes = [process_of(worker, number) for number, worker in enumerate(workers)]
        parent = workers[0]._group._process.pid
        assert (parent in processes) == (count == 1), "a worker alone is not forked"
        os.kill(parent, signal.SIGKILL)
        stage = Toy(label="lost", number=9)
        for worker in workers:
            assert worker._answers.read() == b"", "it ends without being asked for more"
            worker.ask(stage, wait=False)
            with pytest.raises(UserError, match=r"exit status -(9|15)"):
                worker.answer(stage)


def _refuse(_: str) -> None:
    raise ValueError("not to be read")


class Strange(Toy):
    kind: ClassVar[str] = "strange"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_refuse, ("no",))


def test_a_stage_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    with started(Store(tmp_path)) as (worker, _):
        stage = Strange(label="strange")
        worker.ask(stage, wait=False)
        outcome = worker.answer(stage)
        assert outcome.status == "fault"
        assert "not to be read" in outcome.detail
