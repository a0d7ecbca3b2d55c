"""Run a plan's stages on this machine, in this process or in several."""

from __future__ import annotations

import json
import os
import pickle
import selectors
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.free_memory import stated_memory
from mergerisk.study.executors.attempt import Outcome, attempt
from mergerisk.study.executors.crew import Crew
from mergerisk.study.executors.needs import held_bytes, in_steps, large_model
from mergerisk.study.executors.worker import ENVIRONMENT
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from mergerisk.store import Store
    from mergerisk.study.executors.crew import Hire
    from mergerisk.study.stage import Stage
    from mergerisk.study.workbench import Workbench


def hire_local(devices: Sequence[str], batch_size: int) -> Hire:
    """Workers of this machine: this process alone, or one process per device, if there is that much to do.

    Args:
        devices: torch devices, one per worker; one that is named twice has two.
        batch_size: images at a time.
    """

    @contextmanager
    def hire(store: Store, left: int) -> Iterator[Crew]:
        from mergerisk.study.workbench import Compute, Workbench

        if len(devices) == 1 or left == 1:
            with one_thread():
                yield _ThisProcess(Workbench(store, Compute(devices[0], batch_size)))
            return
        processes: list[_WorkerProcess] = []
        try:
            room = stated_memory()
            processes += (_WorkerProcess(store, device, batch_size) for device in devices[:left])
            yield _Processes(processes, store, room)
        finally:
            for process in processes:
                process.close()

    return hire


class _ThisProcess(Crew):
    """Attempts in this process, one at a time, with one thread, as in a worker."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._next: tuple[Stage, bool] | None = None
        self._model = ""
        """A large one that the last stage was given."""

    def lines(self) -> Collection[str]:
        return () if self._next else ("",)

    def near(self) -> Collection[str]:
        return {self._model} - {""}

    def start(self, stage: Stage, wait: bool) -> None:
        self._next = (stage, wait)
        self._model = large_model(stage, self._bench.store) or self._model

    def ended(self) -> tuple[Stage, Outcome]:
        assert self._next is not None
        (stage, wait), self._next = self._next, None
        return stage, attempt(stage, self._bench, wait=wait)


class _Processes(Crew):
    """Workers, a stage at a time each; as many at once as memory suffices for, by what their stages are given.

    Args:
        processes: the workers.
        store: where inputs are.
        room: bytes that were free before any of them was started; None where the system does not say.
    """

    def __init__(self, processes: Sequence[_WorkerProcess], store: Store, room: int | None) -> None:
        self._free = [*processes]
        self._busy: dict[_WorkerProcess, tuple[Stage, int]] = {}
        """Who makes what, and the bytes that it takes."""
        self._store = store
        self._room = room
        self._lines: dict[str, int] = {}
        """Line → bytes that each of its stages takes."""
        self._models: dict[_WorkerProcess, str] = {}
        """Which large one a worker was given last."""

    def line(self, stage: Stage) -> str:
        memory = in_steps(held_bytes(stage, self._store))
        self._lines[str(memory)] = memory
        return str(memory)

    def lines(self) -> Collection[str]:
        if not self._free or not self._busy or self._room is None:
            return [*self._lines] if self._free else []
        taken = sum(memory for _, memory in self._busy.values())
        return [line for line, memory in self._lines.items() if not memory or taken + memory <= self._room]

    def near(self) -> Collection[str]:
        return {self._models[process] for process in self._free if process in self._models}

    def start(self, stage: Stage, wait: bool) -> None:
        model = large_model(stage, self._store)
        process = next((one for one in self._free if model and self._models.get(one) == model), self._free[0])
        self._free.remove(process)
        if model:
            self._models[process] = model
        self._busy[process] = (stage, self._lines[self.line(stage)])
        process.ask(stage, wait)

    def ended(self) -> tuple[Stage, Outcome]:
        with selectors.DefaultSelector() as answers:
            for process in self._busy:
                answers.register(process, selectors.EVENT_READ, process)
            ((found, _), *_) = answers.select()
        process = found.data
        stage, _ = self._busy.pop(process)
        self._free.append(process)
        return stage, process.answer(stage)


class _WorkerProcess:
    """A worker and the pipe to it."""

    def __init__(self, store: Store, device: str, batch_size: int) -> None:
        worker = "mergerisk.study.executors.worker"
        self._process = subprocess.Popen(
            [sys.executable, "-m", worker, str(store.root), device, str(batch_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | ENVIRONMENT,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def fileno(self) -> int:
        """What can be read once there is an answer, or the worker is gone."""
        return self._out.fileno()

    def ask(self, stage: Stage, wait: bool) -> None:
        """Have the worker attempt a stage."""
        with suppress(BrokenPipeError):  # it is gone, as its answer says
            pickle.dump((stage, wait), self._in)
            self._in.flush()

    def answer(self, stage: Stage) -> Outcome:
        """How the attempt ended; waits for it.

        Raises:
            UserError: the worker is gone.
        """
        answer = self._out.readline()
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
        for pipe in (self._in, self._out):
            with suppress(BrokenPipeError):
                pipe.close()
