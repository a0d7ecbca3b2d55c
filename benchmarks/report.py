"""How long a summary with its claims and its page take, and how much memory and disk, for studies of a given size.

    python benchmarks/report.py            # 100 000 settings of 20 images each
    python benchmarks/report.py --starter  # the shape of the starter study: 4 200 settings of 400 images

A setting is one task, attack, surrogate, target and budget. Outcomes are drawn at random: no model is needed.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from mergerisk.report.export import summary_to_json
from mergerisk.report.page import render_html
from mergerisk.report.run_summary import judged_summary
from mergerisk.study import load_study
from mergerisk.study.finished import FinishedRun

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True)
class Shape:
    """How many of everything; targets include the two ingredients."""

    tasks: int
    attacks: int
    targets: int
    epsilons: int
    images: int

    @property
    def settings(self) -> int:
        """Rows of results, with two surrogates."""
        return self.tasks * self.attacks * 2 * self.targets * self.epsilons


LARGE = Shape(tasks=10, attacks=20, targets=50, epsilons=5, images=20)
STARTER = Shape(tasks=7, attacks=6, targets=10, epsilons=5, images=400)


def finished_run(shape: Shape, seed: int = 0) -> FinishedRun:
    """A run with random outcomes: the larger the budget, the more images are fooled."""
    random = np.random.default_rng(seed)
    study = load_study("starter", resolve=False)
    known = [spec.label for spec in study.merging]
    methods = (known + [f"method_{i}" for i in range(shape.targets)])[: shape.targets - 2]
    axes: dict[str, list[Any]] = {
        "task": [f"task_{i}" for i in range(shape.tasks)],
        "attack": [f"attack_{i}" for i in range(shape.attacks)],
        "surrogate": ["expert", "pretrained"],
        "target": ["expert", "pretrained", *methods],
        "epsilon": [2.0**i / 2 / 255 for i in range(shape.epsilons)],
    }
    sizes = [len(names) for names in axes.values()]
    codes = np.indices((*sizes, shape.images)).reshape(len(sizes) + 1, -1)
    table: dict[str, Any] = {}
    for place, (name, names) in enumerate(axes.items()):
        table[name] = (
            pd.Categorical.from_codes(codes[place], categories=pd.Index(names, dtype=object))
            if isinstance(names[0], str)
            else np.asarray(names)[codes[place]]
        )
    rows = codes.shape[1]
    label = codes[-1] % 10
    chance = 1 / (1 + (shape.epsilons / (2.0 ** codes[4])) ** 1.5)
    fooled = random.random((2, rows)) < chance
    wrong = random.random((2, rows)) < 0.15
    outcomes = pd.DataFrame(
        table
        | {"seed": 0, "steps": 10, "image": codes[-1], "label": label}
        | {
            f"{model}_{when}": np.where(mistaken[i], (label + 1) % 10, label)
            for when, mistaken in (("clean", wrong), ("adversarial", fooled))
            for i, model in enumerate(("surrogate", "target"))
        }
        | {"aimed_at": -1, "l2": 0.5, "linf": 0.01, "zero_gradients": 0}
    )
    models = pd.MultiIndex.from_product(
        [axes["task"], axes["target"], range(500)], names=["task", "model", "image"]
    )
    clean = models.to_frame(index=False).assign(seed=0, label=1, prediction=random.integers(0, 2, len(models)))
    record = {
        "versions": {}, "device": "cpu", "workers": 1, "git_revision": None, "started": "", "seconds": 1.0,
        "kinds": {}, "counts": {}, "single_step_attacks": [], "stages": [],
    }  # fmt: skip
    merging = tuple(study.merging[0].model_copy(update={"label": label}) for label in methods)
    return FinishedRun(
        study.model_copy(update={"merging": merging}), outcomes, outcomes.head(0), clean, [], record
    )


def main() -> None:
    """Measure one shape, and print a line per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starter", action="store_true", help="the starter study's shape")
    shape = STARTER if parser.parse_args().starter else LARGE
    run = finished_run(shape)
    print(f"{shape.settings} settings, {len(run.outcomes)} outcomes; peak so far {peak():.2f} GiB")
    summary = timed("summary and claims", lambda: judged_summary(run))
    text = timed("summary.json", lambda: summary_to_json(summary))
    page = timed("report.html", lambda: render_html(summary))
    print(f"summary.json {len(text) / 1e6:.1f} MB, report.html {len(page.encode()) / 1e6:.1f} MB")


def timed(what: str, make: Callable[[], T]) -> T:
    """Do it, and say how long it took and what memory has peaked at."""
    start, processor = time.perf_counter(), time.process_time()
    made = make()
    took, worked = time.perf_counter() - start, time.process_time() - processor
    print(f"{what}: {took:.1f} s, {worked:.1f} s of processor time, peak {peak():.2f} GiB")
    return made


def peak() -> float:
    """Largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
