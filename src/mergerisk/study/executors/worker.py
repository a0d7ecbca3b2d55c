"""A worker process: reads pickled stages, makes their artefacts, answers with JSON lines.

It is told keys and parameters, never tensors. When the process that feeds it dies, its input ends and so does it.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

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


def main() -> None:
    """Entry point: ``python -m mergerisk.study.executors.worker STORE DEVICE BATCH_SIZE``."""
    # Answers go to a private copy of standard output, so that no library can print into them.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    import torch

    from mergerisk.store import open_store
    from mergerisk.study.executors.attempt import Outcome, attempt_elsewhere
    from mergerisk.study.workbench import Compute, Workbench

    store, device, batch_size = sys.argv[1:]
    # One thread a worker: sums are then split the same way on every machine, whatever its number of cores.
    torch.set_num_threads(1)
    bench = Workbench(open_store(Path(store)), Compute(device, int(batch_size)))
    while True:
        try:
            stage, wait = pickle.load(sys.stdin.buffer)  # from the process that started this one
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
