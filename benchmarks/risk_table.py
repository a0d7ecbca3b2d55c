"""Tables of a finished run for the documents: clean accuracy, and what every surrogate does to every target.

    python benchmarks/risk_table.py runs/real-small
    python benchmarks/risk_table.py runs/real-small --epsilon 2/255

ASR and relative ASR are of all images of all tasks and attacks together: fooled over counted, and fooled over
fooled on the surrogate, so that settings in which hardly any image counts weigh little. ε50 is the median over
tasks and attacks, censored values at the ends.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from mergerisk.statistics import epsilon50_table
from mergerisk.validation import parse_fraction


def accuracy_table(clean: pd.DataFrame) -> pd.DataFrame:
    """Model × task and mean, in percent."""
    right = clean["prediction"] == clean["label"]
    table = right.groupby([clean["model"], clean["task"]], observed=True, sort=False).mean().unstack()
    table.insert(0, "mean", table.mean(axis=1))
    return (100 * table).round(1)


def risk_table(outcomes: pd.DataFrame, epsilon: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Target × surrogate: ASR in percent, and relative ASR, at one budget."""
    here = outcomes[np.isclose(outcomes["epsilon"], epsilon)]
    counts = (here["surrogate_clean"] == here["label"]) & (here["target_clean"] == here["label"])
    counted = here[counts]
    columns = {
        "fooled": counted["target_adversarial"] != counted["label"],
        "surrogate": counted["surrogate_adversarial"] != counted["label"],
    }
    sums = (
        pd.DataFrame(columns)
        .assign(images=1)
        .groupby([counted["target"], counted["surrogate"]], observed=True, sort=False)
        .sum()
    )
    asr, relative = sums["fooled"] / sums["images"], sums["fooled"] / sums["surrogate"]
    return (100 * asr).round(1).unstack(), relative.round(2).unstack()


def median_epsilon50(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Target × surrogate: the median ε50, in 255ths."""
    table = epsilon50_table(outcomes)
    ends = {"below_smallest": 0.0, "not_reached": np.inf}
    value = table["epsilon50"].where(table["status"] == "measured", table["status"].map(ends))
    known = table["status"] != "no_images"
    keys = [table.loc[known, name] for name in ("target", "surrogate")]
    return (255 * value[known].groupby(keys, observed=True, sort=False).median()).round(2).unstack()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--epsilon", type=parse_fraction)
    options = parser.parse_args()
    outcomes = pd.read_parquet(options.run / "outcomes.parquet")
    budgets = np.sort(outcomes["epsilon"].unique()) if options.epsilon is None else [options.epsilon]
    print(
        "clean accuracy, %\n", accuracy_table(pd.read_parquet(options.run / "clean.parquet")).to_string(), sep=""
    )
    for epsilon in budgets:
        for name, table in zip(("ASR, %", "relative ASR"), risk_table(outcomes, epsilon), strict=True):
            print(f"\n{name}, at {255 * epsilon:g}/255, by surrogate\n{table.to_string()}")
    print(f"\nmedian ε50, in 255ths, by surrogate\n{median_epsilon50(outcomes).to_string()}")


if __name__ == "__main__":
    main()
