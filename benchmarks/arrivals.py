"""What becomes of an ingredient's danger as others arrive, from a finished run of the study ``sequential``.

    mergerisk run sequential --out runs/sequential
    python benchmarks/arrivals.py runs/sequential

Attacks are made on a task's own expert. Of each way to merge, a row per number of experts that have arrived after
it: -1 is just before it arrives itself. ASR is fooled over counted and relative ASR fooled over fooled on the
surrogate, of all images, tasks and seeds together; intervals are 95 % of a bootstrap that draws images within a
task, an image's outcomes together. The change is in points of ASR since the ingredient's own arrival, of those
ingredients and images that the row has and that count in both. The first to arrive has rows of its own: before it
there is nothing to merge, and the merge of one is the expert itself, a white box.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from mergerisk.transfer import what_happened

CHAINS = {"opcm": 1, "reversed": -1, "mean": 1}
"""Way to merge → the order of the tasks in which it takes them."""
DRAWS = 2000


class Setting(NamedTuple):
    """An ingredient's task under attack, with a merge after some arrivals."""

    first: bool
    later: int
    rows: pd.DataFrame


def settings(outcomes: pd.DataFrame, chain: str, tasks: list[str]) -> list[Setting]:
    """Every ingredient against the merges from just before its arrival on."""
    found = []
    order = tasks[:: CHAINS[chain]]
    for place, task in enumerate(order, start=1):
        own = outcomes[outcomes["task"] == task]
        for arrived in range(max(1, place - 1), len(order) + 1):
            label = "opcm-1" if (chain, arrived) == ("mean", 1) else f"{chain}-{arrived}"
            found.append(Setting(place == 1, arrived - place, own[own["target"] == label].assign(chain=chain)))
    return found


def interval(
    values: np.ndarray, tasks: np.ndarray, ratio: tuple[int, int], draws: np.random.Generator
) -> list[float]:
    """A ratio of two columns' sums, and the ends of its 95 % interval.

    Args:
        values: a row per image of a task.
        tasks: the task of each row.
        ratio: columns above and below.
        draws: of images.
    """
    totals = np.zeros((DRAWS, values.shape[1]))
    for task in np.unique(tasks):
        own = values[tasks == task]
        weights = draws.multinomial(len(own), np.full(len(own), 1 / len(own)), size=DRAWS)
        totals += weights @ own
    above, below = ratio
    whole = values.sum(axis=0)
    return [whole[above] / whole[below], *np.quantile(totals[:, above] / totals[:, below], [0.025, 0.975])]


def row(parts: list[pd.DataFrame], before: list[pd.DataFrame], draws: np.random.Generator) -> list[str]:
    """Ingredients, images, ASR, relative ASR, the change since arrival, and clean accuracy of those attacked."""
    together = pd.concat(parts)
    per = together.groupby(["task", "image"], observed=True)[["counts", "fooled", "own"]].sum()
    tasks = per.index.get_level_values("task").to_numpy()
    asr = interval(per.to_numpy(dtype=float), tasks, (1, 0), draws)
    relative = interval(per.to_numpy(dtype=float), tasks, (1, 2), draws)
    keys = ["chain", "task", "image", "seed"]
    pairs = together.merge(pd.concat(before), on=keys, suffixes=("", "_then")) if before else together.iloc[:0]
    change = ""
    if len(pairs):
        both = pairs[pairs["counts"] & pairs["counts_then"]]
        gain = both["fooled"].astype(float) - both["fooled_then"].astype(float)
        sums = pd.DataFrame({"task": both["task"], "image": both["image"], "gain": gain, "one": 1.0})
        sums = sums.groupby(["task", "image"], observed=True).sum()
        own = sums.index.get_level_values("task").to_numpy()
        change = "{:+.1f} [{:+.1f}, {:+.1f}]".format(
            *(100 * value for value in interval(sums.to_numpy(), own, (0, 1), draws))
        )
    return [
        str(together["task"].nunique()),
        f"{int(together['counts'].sum()):,}",
        "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * value for value in asr)),
        "{:.2f} [{:.2f}, {:.2f}]".format(*relative),
        change,
        f"{100 * float(together['right'].mean()):.1f} %",
    ]


def table(outcomes: pd.DataFrame, chains: list[str], tasks: list[str], *, first: bool) -> list[list[str]]:
    """A row per number of later arrivals, of the first to arrive or of all others."""
    draws = np.random.default_rng(0)
    found = [one for chain in chains for one in settings(outcomes, chain, tasks) if one.first == first]
    rows = []
    for later in sorted({one.later for one in found}):
        parts = [one.rows for one in found if one.later == later]
        start = 1 if first else 0  # the first one's own arrival is a white box
        before = []
        if later > start:
            for chain in chains:
                own = [one for one in settings(outcomes, chain, tasks) if one.first == first]
                before += [one.rows for one in own if one.later == start]
        rows.append([str(later), *row(parts, before, draws)])
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    outcomes = pd.read_parquet(given.run / "outcomes.parquet")
    tasks = [str(task) for task in outcomes["task"].unique()]
    outcomes = outcomes[outcomes["surrogate"] == "expert"].astype({"task": str, "target": str})
    happened = what_happened(outcomes)
    outcomes = outcomes.assign(
        counts=happened.counts,
        fooled=happened.fooled,
        own=happened.surrogate_fooled,
        right=happened.target_right,
    )
    head = [
        "later arrivals",
        "ingredients",
        "images",
        "ASR",
        "relative ASR",
        "points since arrival",
        "clean accuracy",
    ]
    for title, chains in (("OPCM, both orders", ["opcm", "reversed"]), ("running mean", ["mean"])):
        for first in (False, True):
            print(f"\n{title}, {'the first to arrive' if first else 'all but the first'}\n")
            print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
            for cells in table(outcomes, chains, tasks, first=first):
                print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
