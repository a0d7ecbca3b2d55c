"""A process that runs one study after another keeps neither files nor threads nor memory of them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mergerisk.free_memory import resident_memory
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

STUDIES = 20
WARM = 4
"""Studies after which every library is loaded and every pool of memory has found its size."""

RUNS = """
import gc, json, os, sys, threading
from pathlib import Path
import mergerisk as mr
from mergerisk.free_memory import resident_memory
from mergerisk.memory import return_freed

study, out, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
held = []
for number in range(count):
    mr.run(study, out / str(number), seed=number, workers=2 if number % 7 == 3 else 1, progress=False)
    gc.collect()
    return_freed()
    files = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name.isdigit()
             and os.path.exists(f"/proc/self/fd/{name}")]
    held.append({"files": len(files), "stores": sum(str(out) in file for file in files),
                 "threads": threading.active_count(), "tasks": len(os.listdir("/proc/self/task")),
                 "memory": resident_memory()})
print(json.dumps(held))
"""


@pytest.mark.slow
@pytest.mark.skipif(resident_memory() is None, reason="the system does not say what a process holds")
def test_twenty_studies_in_one_process_leave_nothing(tmp_path: Path, tiny_vit: Path) -> None:
    study = write_tiny_study(
        tmp_path / "study",
        tiny_vit,
        attacks=["fgsm"],
        budgets={"epsilon": ["8/255"], "steps": 1},
        images_per_task=6,
        experts={"fine_tune": {"epochs": 1}},
    )
    command = [sys.executable, "-c", RUNS, str(study), str(tmp_path / "runs"), str(STUDIES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    held = json.loads(done.stdout.splitlines()[-1])
    assert len(held) == STUDIES
    warm, last = held[WARM - 1], held[-1]
    assert all(later["stores"] == 0 for later in held)  # no file of any run
    assert last["files"] <= warm["files"]
    assert last["threads"] == warm["threads"]
    # Libraries' pools get threads when they are first busy: fewer than one a study.
    assert last["tasks"] - warm["tasks"] < (STUDIES - WARM) // 2
    # The graphs and models that were once kept took over a mebibyte a study.
    assert last["memory"] - warm["memory"] < 12 * 2**20, [one["memory"] >> 20 for one in held]
