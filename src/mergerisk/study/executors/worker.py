"""A worker process: reads pickled stages, makes their artefacts, answers with JSON lines.

It is told keys and parameters, never tensors. When the process that feeds it dies, its input ends and so does it.

Importing PyTorch and transformers takes seconds and hundreds of megabytes. Several workers have it done once: by a
process that is forked for each of them, and computes nothing itself.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc would give every large activation back to the system and fault it in again: about a tenth of the time
    # at these sizes. Other allocators ignore this.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""What every process that makes stages starts with."""

_PARENT_DIED = 1
"""Linux's number for: send this process a signal when its parent ends (prctl's PR_SET_PDEATHSIG)."""


@dataclass(frozen=True)
class Place:
    """A worker's own.

    Attributes:
        asked: descriptor of the pipe that stages come from.
        answers: of the one that outcomes go to.
        device: torch device.
    """

    asked: int
    answers: int
    device: str

    def __str__(self) -> str:
        return f"{self.asked}:{self.answers}:{self.device}"

    @classmethod
    def parsed(cls, text: str) -> Self:
        """From an argument."""
        asked, answers, device = text.split(":", 2)
        return cls(int(asked), int(answers), device)

    def close(self) -> None:
        """Let go of both pipes."""
        os.close(self.asked)
        os.close(self.answers)


def main() -> None:
    """Entry point: ``python -m mergerisk.study.executors.worker STORE BATCH_SIZE ASKED:ANSWERS:DEVICE…``, a worker
    for each of the last. Of several, a line ``NUMBER STATUS`` on standard output tells that one has ended."""
    # A private copy of standard output, so that no library can print into it.
    ends = os.dup(1)
    os.dup2(2, 1)
    store, batch_size, *rest = sys.argv[1:]
    places = [Place.parsed(text) for text in rest]

    # What nearly every stage needs; nothing that begins threads, which no fork would take along.
    import torch
    import transformers.modeling_utils  # noqa: F401

    import mergerisk.study.workbench  # noqa: F401

    # One thread a worker: sums are then split the same way on every machine, whatever its number of cores.
    torch.set_num_threads(1)
    gc.freeze()  # what is imported stays, and need not be looked through again
    if len(places) == 1:
        os.close(ends)
        _serve(store, int(batch_size), places[0])
    else:
        _fork(places, partial(_serve, store, int(batch_size)), ends)


def _fork(places: Sequence[Place], serve: Callable[[Place], None], ends: int) -> None:
    """A worker for each place; until the last has ended, tell of each that did.

    A signal to end is for all of them, which are waited for even then: the system counts their time as ours.
    """
    workers: dict[int, int] = {}

    def end(*_: object) -> None:
        for worker in workers:
            with suppress(ProcessLookupError):  # it has ended, and was not taken out yet
                os.kill(worker, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    for number, place in enumerate(places):
        worker = os.fork()
        if not worker:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(ends)
            for other in places[number + 1 :]:
                other.close()
            os._exit(_status(partial(serve, place)))
        place.close()
        workers[worker] = number
    with os.fdopen(ends, "w", encoding="utf-8") as told:
        while workers:
            worker, status = os.wait()
            print(workers.pop(worker), os.waitstatus_to_exitcode(status), file=told, flush=True)


def _status(serve: Callable[[], None]) -> int:
    """Exit status of a forked worker, which ends at once where the process that it was forked from is killed."""
    import ctypes

    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGTERM)
    try:
        serve()
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _serve(store: str, batch_size: int, place: Place) -> None:
    """Make one stage after another, until there are no more to come."""
    from mergerisk.store import open_store
    from mergerisk.study.executors.attempt import Outcome, attempt_elsewhere
    from mergerisk.study.workbench import Compute, Workbench

    bench = Workbench(open_store(Path(store)), Compute(place.device, batch_size))
    with os.fdopen(place.asked, "rb") as asked, os.fdopen(place.answers, "w", encoding="utf-8") as answers:
        while True:
            try:
                stage, wait = pickle.load(asked)  # from the process that started this one
            except EOFError:
                break
            except Exception:
                outcome = Outcome("fault", detail=traceback.format_exc())
            else:
                outcome = attempt_elsewhere(stage, bench, wait=wait)
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
