"""What each attack of a finished study costs and gives, as a Markdown table.

    mergerisk run attacks && python benchmarks/attack_table.py runs/attacks --epsilon 2/255

White box: the expert the attack is made on. Transfer: one target. Both ASRs pool the images of all tasks that
expert and target classify correctly when clean, with Wilson's 95 % interval; ε50 on the target is the median over
tasks.
Images per second are those of the run's crafting, in each worker, all budgets together.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.api import write_report
from mergerisk.attacks import create
from mergerisk.report.cells import axes_of
from mergerisk.report.epsilon50 import ALL, epsilon50_table, epsilon50_text
from mergerisk.statistics import wilson_interval
from mergerisk.study import load_study
from mergerisk.validation import parse_fraction

if TYPE_CHECKING:
    import pandas as pd


def pooled(rows: pd.DataFrame) -> str:
    """ASR over all images of some settings, with its interval."""
    trials = rows["images_both_correct"].to_numpy()
    successes = np.rint(np.nan_to_num(rows["asr"].to_numpy()) * trials).sum()
    low, high = wilson_interval(np.array([successes]), np.array([trials.sum()]))
    return f"{100 * successes / trials.sum():.0f} [{100 * low[0]:.0f}, {100 * high[0]:.0f}]"


def speed(folder: Path, images: int) -> dict[str, float]:
    """Attack → images crafted per second."""
    taken: dict[str, list[float]] = {}
    for stage in json.loads((folder / "run.json").read_text())["stages"]:
        if stage["kind"] == "craft":
            taken.setdefault(stage["label"].split(" on ")[0], []).append(stage["seconds"])
    return {attack: images * len(seconds) / sum(seconds) for attack, seconds in taken.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epsilon", type=parse_fraction, required=True)
    parser.add_argument("--target", default="weight_averaging")
    options = parser.parse_args()
    study = load_study(options.folder / "study.yaml")
    summary = write_report(options.folder).summary
    axes = axes_of(summary)
    medians = epsilon50_table(summary.epsilon50, axes)
    per_second = speed(options.folder, study.images_per_task)
    here = summary.results[np.isclose(summary.results["epsilon"], options.epsilon)]
    print("| attack | gradients per image | images per second | white-box ASR, % | transfer ASR, % | ε50 |")
    print("|---|---|---|---|---|---|")
    for spec in study.attacks:
        rows = here[here["attack"] == spec.label]
        key = ("expert", spec.label, ALL, options.target)
        cells = (
            f"`{spec.label}`",
            str(create(spec.name, **spec.parameters).gradients_per_image),
            f"{per_second[spec.label]:.3g}",
            pooled(rows[rows["target"] == "expert"]),
            pooled(rows[rows["target"] == options.target]),
            epsilon50_text(medians[key].value, axes.epsilons) if key in medians else "–",
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
