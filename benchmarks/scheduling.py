"""What handing out stages costs, and what a second worker gains.

    python benchmarks/scheduling.py [STAGES]

1. STAGES (500 by default) that do nothing, but are locked, published and flushed to disk as any other: what each
   takes, from the first that ends to the last; starting Ray and importing PyTorch do not count. Limit: 20 ms.
2. Crafting on two tasks of the starter suite: stages per second of one and of two workers, in the same way. Limit:
   1.7 times as many. On a machine that does other work the figures are of what is left.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from idle_stages import Idle
from mergerisk.store import Store
from mergerisk.study import make_plan
from mergerisk.study.executors.events import StageEnded
from mergerisk.study.executors.hiring import workforce
from mergerisk.study.executors.loop import run_stages
from mergerisk.study.reading import parse_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.study import Plan, Stage
    from mergerisk.study.executors.events import Event
    from mergerisk.study.executors.hiring import Workforce

STUDY = {
    "name": "scheduling",
    "backbone": "starter-vit",
    "tasks": ["digits", "letters"],
    "heads": {"regularization": 0.003},
    "experts": {"fine_tune": {"epochs": 1, "learning_rate": 0.0004, "batch_size": 64}},
    "merging": ["weight_averaging"],
    "attacks": ["mi_fgsm"],
    "surrogates": ["expert", "pretrained"],
    "budgets": {"epsilon": ["1/255", "2/255", "3/255", "4/255", "6/255", "8/255"], "steps": 10},
    "images_per_task": 64,
}


def plan_of(stages: Sequence[Stage]) -> Plan:
    """A plan of these stages and no others."""
    return replace(make_plan(parse_study(dict(STUDY), Path())), stages={stage.key: stage for stage in stages})


def seconds_each(plan: Plan, store: Store, crew: Workforce) -> float:
    """Wall-clock seconds per stage, once every worker has ended one."""
    ends: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StageEnded) and event.outcome.status == "done":
            ends.append(time.perf_counter())

    run_stages(plan, store, crew.hire, listener=listen)
    skipped = 2 * crew.workers
    return (ends[-1] - ends[skipped - 1]) / (len(ends) - skipped)


def main(count: int) -> None:
    """Both, with workers of this machine and with a Ray cluster of its own."""
    # Workers import the stages of this folder.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    )
    plan = make_plan(parse_study(dict(STUDY), Path()))
    idle = [Idle(label=str(number), number=number) for number in range(count)]
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        with workforce(workers=2) as crew:
            before = {key: stage for key, stage in plan.stages.items() if stage.kind not in {"craft", "evaluate"}}
            run_stages(replace(plan, stages=before), Store(place / "study"), crew.hire)
        print(f"load of this machine: {os.getloadavg()[0]:.1f}", flush=True)
        for executor in ("local", "ray"):
            rates = []
            for workers in (1, 2):
                with workforce(executor=executor, workers=workers) as crew:
                    empty = Store(place / f"idle-{executor}-{workers}")
                    each = seconds_each(plan_of(idle), empty, crew)
                    print(f"{executor}, {workers} workers: {1000 * each:.1f} ms per idle stage", flush=True)
                    store = Store(place / "study")
                    crafts = {key: stage for key, stage in plan.stages.items() if stage.kind == "craft"}
                    for key in crafts:
                        store.remove(key)
                    rates.append(1 / seconds_each(replace(plan, stages={**before, **crafts}), store, crew))
            ratio = rates[1] / rates[0]
            print(
                f"{executor}: crafts {rates[0]:.2f} and {rates[1]:.2f} sets a second, {ratio:.2f} times",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
