"""Time and memory of ``mergerisk claims``, on made-up studies.

    python benchmarks/claims.py              # both
    python benchmarks/claims.py outcomes     # 336 settings × 2 surrogates × 4 budgets × 100 images, per image
    python benchmarks/claims.py results      # 100,000 settings, rates only

Each is written to a temporary folder, and judged by the command in a process of its own, whose peak memory is
read. Limits: 10 s for the outcomes; 30 s and 2 GiB for the rates.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

METHODS = ("weight_averaging", "task_arithmetic", "ties", "adamerging")
TARGETS = ("expert", "pretrained", *METHODS, *(f"{name}+surgery" for name in METHODS))


def settings(tasks: int, attacks: int, budgets: int, targets: tuple[str, ...]) -> pd.DataFrame:
    """One row per setting."""
    axes = (
        [f"task_{i}" for i in range(tasks)],
        [f"attack_{i}" for i in range(attacks)],
        ["expert", "pretrained"],
        list(targets),
        (np.arange(budgets) + 1) / 255,
    )
    index = pd.MultiIndex.from_product(axes, names=["task", "attack", "surrogate", "target", "epsilon"])
    return index.to_frame(index=False).assign(seed=0, steps=10)


def write_outcomes(folder: Path, images: int = 100) -> int:
    """A run's folder with outcomes per image; returns how many settings of merges it holds, as papers count."""
    table = settings(7, 6, 4, TARGETS)
    random = np.random.default_rng(0)
    rows = table.loc[table.index.repeat(images)].reset_index(drop=True)
    for name in ("task", "attack", "surrogate", "target"):
        rows[name] = rows[name].astype("category")
    chance = np.minimum(0.2 * 255 * rows["epsilon"].to_numpy(), 0.9)
    rows = rows.assign(
        image=np.tile(np.arange(images), len(table)),
        label=0,
        surrogate_clean=random.binomial(1, 0.05, len(rows)),
        target_clean=random.binomial(1, 0.2, len(rows)),
        surrogate_adversarial=random.binomial(1, chance),
        target_adversarial=random.binomial(1, 0.8 * chance),
        aimed_at=-1,
        l2=1.0,
        linf=0.01,
        zero_gradients=0,
    )
    rows.to_parquet(folder / "outcomes.parquet")
    return 7 * 6 * (len(TARGETS) - 2)


def write_results(folder: Path) -> int:
    """A run's folder with rates alone; returns how many settings it holds."""
    targets = ("expert", "pretrained", *METHODS, *(f"{name}+surgery" for name in METHODS))
    more = tuple(f"variant_{i}" for i in range(40))
    table = settings(20, 25, 2, (*targets, *more))
    random = np.random.default_rng(0)
    own = random.uniform(0.5, 1, len(table))
    table["images"] = 100
    table["images_both_correct"] = 80
    table["clean_accuracy_target"] = random.uniform(0.5, 1, len(table))
    table["surrogate_asr"] = own
    table["asr"] = own * random.uniform(0.6, 1, len(table))
    table["asr_all"] = np.minimum(table["asr"] + 0.1, 1)
    table.to_parquet(folder / "results.parquet")
    return len(table)


def measure(folder: Path) -> tuple[float, float]:
    """Seconds and peak MiB of judging a folder's claims."""
    program = (
        "import resource, sys\n"
        "from mergerisk.cli.main import main\n"
        f"main(['claims', {str(folder)!r}])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, int(done.stderr.split()[-1]) / 1024


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["outcomes", "results"])
    wanted = parser.parse_args().what
    for what, write in (("outcomes", write_outcomes), ("results", write_results)):
        if wanted in {None, what}:
            with tempfile.TemporaryDirectory() as name:
                count = write(Path(name))
                seconds, memory = measure(Path(name))
            print(f"{what}: {count:,} settings, {seconds:.1f} s, {memory:,.0f} MiB at most")


if __name__ == "__main__":
    main()
