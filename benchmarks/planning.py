"""How long a study takes to plan, and in how much memory.

    python benchmarks/planning.py [METHODS]

The starter study, and a generated one of METHODS merges × 7 tasks × 6 attacks (2,381 by default: about 100,000
settings), each planned in a process of its own. Limits: 10 s and 1 GiB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from mergerisk.study import load_study, make_plan
from mergerisk.study.fields.named import MethodSpec


def main(methods: int) -> None:
    """Plan the starter study with so many merges; its own if there are none."""
    study = load_study("starter")
    if methods:
        generated = tuple(
            MethodSpec.model_validate(
                {
                    "method": "task_arithmetic",
                    "scaling": (position + 1) / methods,
                    "label": f"scaling-{position + 1}",
                }
            )
            for position in range(methods)
        )
        study = study.model_copy(update={"merging": generated})
    start, computed = time.perf_counter(), time.process_time()
    plan = make_plan(study)
    seconds, computed = time.perf_counter() - start, time.process_time() - computed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{study.settings:,} settings, {len(plan.stages):,} stages: {seconds:.2f} s "
        f"({computed:.2f} s of processor time), {peak:,.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        main(int(sys.argv[2]))
    else:
        for count in ("0", *(sys.argv[1:] or ["2381"])):
            subprocess.run([sys.executable, __file__, "--one", count], check=True)
