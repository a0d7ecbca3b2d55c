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
from mergerisk.study.executors.worker import ENVIRONMENT, Place
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
        groups: list[_WorkerGroup] = []
        try:
            room = stated_memory()
            groups += (_WorkerGroup(store, together, batch_size) for together in _groups(devices[:left]))
            yield _Processes([worker for group in groups for worker in group.workers], store, room)
        finally:
            for group in groups:
                group.close()

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
    """A worker and the pipes to it.

    Args:
        number: its own in the group.
        group: who was started with it.
        asks: pipe to it.
        answers: pipe from it.
    """

    def __init__(self, number: int, group: _WorkerGroup, asks: int, answers: int) -> None:
        self._number = number
        self._group = group
        self._asks, self._answers = os.fdopen(asks, "wb"), os.fdopen(answers, "rb")

    def fileno(self) -> int:
        """What can be read once there is an answer, or the worker is gone."""
        return self._answers.fileno()

    def ask(self, stage: Stage, wait: bool) -> None:
        """Have the worker attempt a stage."""
        with suppress(BrokenPipeError):  # it is gone, as its answer says
            pickle.dump((stage, wait), self._asks)
            self._asks.flush()

    def answer(self, stage: Stage) -> Outcome:
        """How the attempt ended; waits for it.

        Raises:
            UserError: the worker is gone.
        """
        answer = self._answers.readline()
        if not answer:
            raise UserError(
                f"a worker ended unexpectedly (exit status {self._group.status(self._number)}) in stage "
                f"{stage.kind} ({stage.label}); if it ran out of memory, use fewer --workers; everything finished "
                "is kept: run again to resume"
            )
        return Outcome(**json.loads(answer))

    def hang_up(self) -> None:
        """Ask for nothing more."""
        with suppress(BrokenPipeError):
            self._asks.close()

    def gone(self) -> None:
        """Wait until the worker is gone, which was told to end."""
        while self._answers.read(2**16):
            pass
        self._answers.close()


class _WorkerGroup:
    """Workers that are started as one process; it becomes the worker, or has several of them forked from it.

    Args:
        store: where inputs are.
        devices: torch devices, one per worker.
        batch_size: images at a time.
    """

    def __init__(self, store: Store, devices: Sequence[str], batch_size: int) -> None:
        asks, answers = [os.pipe() for _ in devices], [os.pipe() for _ in devices]
        places = [
            Place(asked, answered, device)
            for (asked, _), (_, answered), device in zip(asks, answers, devices, strict=True)
        ]
        module = "mergerisk.study.executors.worker"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(store.root), str(batch_size), *map(str, places)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=os.environ | ENVIRONMENT,
                pass_fds=[end for place in places for end in (place.asked, place.answers)],
            )
        finally:
            for place in places:
                place.close()
        self.workers = [
            _WorkerProcess(number, self, asking, answering)
            for number, ((_, asking), (answering, _)) in enumerate(zip(asks, answers, strict=True))
        ]
        self._statuses: dict[int, int] = {}

    def status(self, number: int) -> int:
        """Exit status of a worker that is gone, or of the process that it was forked from, if that is."""
        assert self._process.stdout is not None
        while number not in self._statuses and (line := self._process.stdout.readline()):
            ended, status = map(int, line.split())
            self._statuses[ended] = status
        return self._statuses[number] if number in self._statuses else self._process.wait()

    def close(self) -> None:
        """End the workers: at once, since what they may be making is not published."""
        for worker in self.workers:
            worker.hang_up()
        self._process.terminate()
        self._process.wait()
        for worker in self.workers:
            worker.gone()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _groups(devices: Sequence[str]) -> list[Sequence[str]]:
    """Devices whose workers are forked from one process: all of the processor's, where one that has imported
    PyTorch may be forked. Apple's libraries are against it; so is CUDA, once anything has looked for a device."""
    if sys.platform == "linux" and {*devices} == {"cpu"}:
        return [devices]
    return [[device] for device in devices]
