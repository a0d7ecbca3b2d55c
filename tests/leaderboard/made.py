"""Entries made of outcomes that are drawn, not computed by models: what is fooled is known."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mergerisk.leaderboard.entries import recomputed
from mergerisk.report.export import summary_to_json
from mergerisk.study.finished import FinishedRun, write_run
from mergerisk.study.reading import parse_study

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ("digits", "letters")
IMAGES = 60

RATES = {"weight_averaging": 0.7, "ties": 0.3, "task_arithmetic": 0.32}
"""Method → how often the stronger attacker fools it at the middle budget."""

STUDY: dict[str, Any] = {
    "name": "made",
    "backbone": "starter-vit",
    "tasks": [*TASKS],
    "attacks": ["fgsm"],
    "surrogates": ["expert", "pretrained"],
    "budgets": {"epsilon": ["2/255", "4/255", "8/255"]},
    "images_per_task": IMAGES,
}


def make_run(rates: dict[str, float] | None = None, seed: int = 3, **changes: Any) -> FinishedRun:
    """A run in which an image is fooled where a draw of its own lies below the method's rate, smaller budgets and
    the weaker attacker less often; the same images for all methods and runs."""
    rates = RATES if rates is None else rates
    study = parse_study({**STUDY, "merging": [*rates], **changes})
    draw = np.random.default_rng(seed)
    blocks, clean = [], []
    for task in study.task_names:
        labels = np.arange(2 * IMAGES) % 10
        known = {name: draw.random(2 * IMAGES) < 0.9 for name in ("pretrained", "expert", *study.target_labels)}
        said = {name: np.where(right, labels, (labels + 1) % 10) for name, right in known.items()}
        images = np.arange(0, 2 * IMAGES, 2)[: study.images_per_task]
        hardness = draw.random(len(images))
        for name, classes in said.items():
            names = {"task": task, "model": name, "seed": 0}
            clean.append(
                pd.DataFrame({**names, "image": range(2 * IMAGES), "label": labels, "prediction": classes})
            )
        for spec, epsilon in product(study.surrogates, study.budgets.epsilon):
            strength = {2: 0.5, 4: 1.0, 8: 1.3}[round(255 * epsilon)] * (1.0 if spec.label == "expert" else 0.8)
            answers = {}
            for name in said:
                own = np.clip(hardness + 0.15 * draw.standard_normal(len(images)), 0, 1)
                fooled = own < rates.get(name, 0.8) * strength
                answers[name] = np.where(fooled, (labels[images] + 3) % 10, labels[images])
            for target, answer in answers.items():
                names = {"task": task, "attack": "fgsm", "surrogate": spec.label, "target": target}
                columns = {
                    "epsilon": epsilon,
                    "seed": 0,
                    "steps": 1,
                    "image": images,
                    "label": labels[images],
                    "surrogate_clean": said[spec.label][images],
                    "target_clean": said[target][images],
                    "surrogate_adversarial": answers[spec.label],
                    "target_adversarial": answer,
                    "aimed_at": -1,
                    "l2": 10 * epsilon,
                    "linf": epsilon,
                    "zero_gradients": 0,
                }
                blocks.append(pd.DataFrame({**names, **columns}))
    outcomes = pd.concat(blocks, ignore_index=True)
    record = {
        "versions": {"mergerisk": "0.1.0", "numpy": np.__version__},
        "device": "cpu",
        "workers": 1,
        "git_revision": None,
        "started": "2026-11-29T10:00:00+00:00",
        "seconds": 1.0,
        "kinds": {"task": {"count": 2, "cached": 0, "seconds": 1.0}},
        "stages": [{"kind": "task", "label": task, "key": f"{i:064x}"} for i, task in enumerate(study.task_names)],
        "counts": {},
        "single_step_attacks": ["fgsm"],
    }
    return FinishedRun(study, outcomes, outcomes.head(0), pd.concat(clean, ignore_index=True), [], record)


def write_entry(folder: Path, run: FinishedRun) -> Path:
    """A run's folder as a run leaves it, with the figures that its outcomes give."""
    folder.mkdir(parents=True)
    write_run(run, folder)
    (folder / "study.yaml").write_text(run.study.to_yaml())
    summary = recomputed(run)
    (folder / "summary.json").write_text(summary_to_json(summary))
    summary.results.to_csv(folder / "results.csv", index=False)
    return folder


def change_json(path: Path, change: Any) -> None:
    """Change what a JSON file holds in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_table(path: Path, change: Any) -> None:
    """Change a table of outcomes."""
    change(pd.read_parquet(path)).to_parquet(path)
