"""What it costs to measure causes when every model is asked once, beside asking anew for every pair.

    python benchmarks/causes.py [IMAGES]

One surrogate and 16 targets, starter ViTs that differ a little, on IMAGES digits (200 by default): gradient
alignment, its first-order gain and gradients' size. The limit is one gradient per image and model: 17. Both
ways run one after the other, three times, in one process with one thread; the values are compared. Then, for
every shipped study with causes, how many backward passes its plan asks for, beside those of single pairs.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

import mergerisk as mr
from mergerisk.causes import Measured, ProbingCause
from mergerisk.study import load_study, make_plan
from mergerisk.study.kinds.ask import Ask
from mergerisk.study.kinds.compare import Compare
from mergerisk.study.shipped import shipped_studies

if TYPE_CHECKING:
    from mergerisk.study import Plan

TARGETS = 16
ROUNDS = 3
NAMES = ("gradient_alignment", "gradient_size")


def models(task: mr.Task) -> list[mr.Classifier]:
    """A surrogate and its targets: the base's weights, each with noise of its own."""
    base = mr.load_encoder("starter-vit")
    head = mr.linear_probe(base, task, seed=0)
    found = []
    for number in range(TARGETS + 1):
        draws = torch.Generator().manual_seed(number)
        state = {name: t + 1e-3 * torch.randn(t.shape, generator=draws) for name, t in base.state().items()}
        found.append(mr.Classifier(base.with_state(state), head))
    return found


def compare(images: int) -> None:
    """Seconds both ways, and that they give the same."""
    task = mr.load_task("digits")
    surrogate, *targets = models(task)
    shown, labels = task.test.images[:images], task.test.labels[:images]
    causes = [cause for name in NAMES if isinstance(cause := mr.causes.create(name), ProbingCause)]
    named = {str(number): target for number, target in enumerate(targets)}

    def shared() -> dict[tuple[str, str, str], Measured]:
        return mr.causes.measure(causes, {"s": surrogate}, named, shown, labels)

    def anew() -> dict[tuple[str, str, str], Measured]:
        return {
            (cause.name, "s", name): cause(surrogate, target, shown, labels)
            for cause in causes
            for name, target in named.items()
        }

    seconds: dict[str, list[float]] = {"shared": [], "anew": []}
    for _ in range(ROUNDS):
        for name, way in (("shared", shared), ("anew", anew)):
            start = time.perf_counter()
            found = way()
            seconds[name].append(time.perf_counter() - start)
            if name == "shared":
                kept = found
    for key, columns in found.items():
        for column, values in columns.items():
            np.testing.assert_allclose(kept[key][column].values, values.values, rtol=1e-3, atol=1e-5)
    one, other = (median(seconds[name]) for name in ("shared", "anew"))
    each = 2 * TARGETS * len(NAMES)
    print(
        f"{images} images, {TARGETS} targets: {TARGETS + 1} gradients an image, {one:.2f} s; pair by pair {each}, "
        f"{other:.2f} s: {other / one:.1f} times"
    )


def asked(plan: Plan) -> tuple[int, int]:
    """Backward passes that the plan asks for, and those of every diagnostic of every pair by itself."""
    once: Counter[str] = Counter()
    for stage in plan.stages.values():
        if isinstance(stage, Ask):
            once.update(stage.cost())
    gradients = {
        key: stage.cost().get("gradient", 0) for key, stage in plan.stages.items() if isinstance(stage, Ask)
    }
    anew = sum(
        gradients[made.key]
        for stage in plan.stages.values()
        if isinstance(stage, Compare)
        for answers in (*stage.of_surrogate.values(), *stage.of_target.values())
        for made in answers
    )
    return once["gradient"], anew


if __name__ == "__main__":
    torch.set_num_threads(1)
    compare(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    for name, file in shipped_studies().items():
        if "causes:" in file.read_text() and not name.startswith("real-"):
            once, anew = asked(make_plan(load_study(name)))
            print(f"{name}: {once:,} gradients, pair by pair {anew:,}: {anew / once:.1f} times")
