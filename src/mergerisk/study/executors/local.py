"""Run a plan's stages on this machine, in this process or in several."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.study.executors.attempt import Outcome, attempt
from mergerisk.study.executors.scheduler import Scheduler
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mergerisk.store import Store
    from mergerisk.study.planning import Plan
    from mergerisk.study.stage import Stage
    from mergerisk.study.workbench import Compute

    Attempt = Callable[[Stage, bool], Outcome]
    Listener = Callable[[Stage, str, float], None]
    """Called with a stage, ``started`` or how the attempt ended, and its seconds; for ``damaged``, with the stage
    whose artefact was found so."""


class StageFailedError(RuntimeError):
    """A stage failed through a fault of ours; the message ends with its traceback."""


def run_stages(
    plan: Plan, store: Store, compute: Compute, *, workers: int = 1, listener: Listener = lambda *_: None
) -> None:
    """Make every missing artefact of the plan.

    Args:
        plan: the stages.
        store: where artefacts go.
        compute: device and batch size of every worker.
        workers: processes; 1 runs in this one. Each computes with one thread.
        listener: told of every start and end, and of artefacts that were found damaged; called from one thread at
            a time. What it raises ends the run.

    Raises:
        UserError: a stage's material is at fault, the disk is full, or a worker was killed.
        StageFailedError: a fault of ours.
    """
    missing = {stage.key for stage in plan.missing(store)}
    if not missing:
        return
    scheduler = Scheduler(plan.stages, plan.stages.keys() - missing)
    workers = min(workers, len(missing))
    shift = _Shift(plan, scheduler, listener)
    if workers == 1:
        with _in_process(store, compute) as try_stage:
            shift.work(try_stage)
        shift.raise_failure()
        return
    processes = [_WorkerProcess(store, compute) for _ in range(workers)]
    threads = [threading.Thread(target=shift.work, args=(process.attempt,)) for process in processes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                # A join with a timeout lets an interrupt through.
                thread.join(timeout=0.5)
    finally:
        scheduler.stop()
        for process in processes:
            process.close()
        for thread in threads:
            thread.join()
    shift.raise_failure()


class _Shift:
    """What the threads that feed workers share."""

    def __init__(self, plan: Plan, scheduler: Scheduler, listener: Listener) -> None:
        self._plan = plan
        self._scheduler = scheduler
        self._listener = listener
        self._telling = threading.Lock()
        self._failure: Exception | None = None

    def work(self, try_stage: Attempt) -> None:
        """Take stages until none is left or one fails."""
        while (taken := self._scheduler.take()) is not None:
            try:
                stage, wait = taken
                self._tell(stage, "started", 0.0)
                outcome = try_stage(stage, wait)
                self._settle(stage, outcome)
                about = self._plan.stages[outcome.detail] if outcome.status == "damaged" else stage
                self._tell(about, outcome.status, outcome.seconds)
            except Exception as error:  # raised again by `raise_failure`
                self._fail(error)
                return

    def _settle(self, stage: Stage, outcome: Outcome) -> None:
        """What a worker reports of a stage, told to the scheduler; a failure ends the run."""
        if outcome.status == "done":
            self._scheduler.finish(stage)
        elif outcome.status == "busy":
            self._scheduler.defer(stage)
        elif outcome.status == "damaged":
            self._scheduler.remake(stage, outcome.detail)
        elif outcome.status == "mistake":
            self._fail(UserError(outcome.detail))
        else:
            self._fail(StageFailedError(f"stage {stage.kind} ({stage.label}) failed:\n{outcome.detail}"))

    def _tell(self, stage: Stage, event: str, seconds: float) -> None:
        with self._telling:
            self._listener(stage, event, seconds)

    def _fail(self, error: Exception) -> None:
        """Keep the first failure, which is raised once every thread has stopped."""
        self._failure = self._failure or error
        self._scheduler.stop()

    def raise_failure(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:
            raise self._failure


@contextmanager
def _in_process(store: Store, compute: Compute) -> Iterator[Attempt]:
    """Attempts in this process, with one thread, as in a worker."""
    from mergerisk.study.workbench import Workbench

    with one_thread():
        bench = Workbench(store, compute)
        yield lambda stage, wait: attempt(stage, bench, wait=wait)


class _WorkerProcess:
    """A worker and the pipe to it."""

    def __init__(self, store: Store, compute: Compute) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            # glibc would give every large activation back to the system and fault it in again: about a tenth
            # of the time at these sizes. Other allocators ignore this.
            "MALLOC_MMAP_THRESHOLD_": str(2**30),
            "MALLOC_TRIM_THRESHOLD_": str(2**32),
        }
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mergerisk.study.executors.worker",
                str(store.root),
                compute.device,
                str(compute.batch_size),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def attempt(self, stage: Stage, wait: bool) -> Outcome:
        """Have the worker attempt a stage.

        Raises:
            UserError: the worker is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((stage, wait), self._process.stdin)
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except (BrokenPipeError, ValueError):
            answer = b""
        if not answer:
            code = self._process.wait()
            raise UserError(
                f"a worker ended unexpectedly (exit status {code}) in stage {stage.kind} ({stage.label}); if it "
                "ran out of memory, use fewer --workers; everything finished is kept: run again to resume"
            )
        return Outcome(**json.loads(answer))

    def close(self) -> None:
        """End the worker: at once, since what it may be making is not published."""
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
