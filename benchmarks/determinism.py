"""How far a run's outcomes depend on what they should not: once more, workers, threads, the order of tasks; and on
what they cannot help depending on, the processor whose instructions add floats in another order.

    python benchmarks/determinism.py [FOLDER]

One small study (two tasks of the starter suite, a data-free and two data-driven methods, three attacks) is run
anew from nothing each time, and its outcomes are compared row by row with the first run's. Processors are stood in
for by what PyTorch and its libraries can be told to leave out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = ["task", "attack", "surrogate", "target", "epsilon", "seed", "image"]
SAID = ["surrogate_clean", "target_clean", "surrogate_adversarial", "target_adversarial"]

STUDY = {
    "name": "determinism",
    "backbone": "starter-vit",
    "tasks": ["digits", "letters"],
    "heads": {"regularization": 0.003},
    "experts": {"fine_tune": {"epochs": 3, "learning_rate": 0.0004, "batch_size": 64}},
    "merging": ["weight_averaging", {"method": "adamerging", "steps": 50}, "ties+surgery"],
    "attacks": ["mi_fgsm", "di_fgsm", "ti_fgsm"],
    "surrogates": ["expert", "pretrained"],
    "budgets": {"epsilon": ["2/255", "4/255", "8/255"], "steps": 10},
    "images_per_task": 100,
}

OLD = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}
MIDDLE = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}

RUNS: Mapping[str, tuple[int, dict[str, str], bool]] = {
    "first": (1, {}, False),
    "again": (1, {}, False),
    "two workers": (2, {}, False),
    "two threads offered": (1, {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}, False),
    "tasks in another order": (1, {}, True),
    "instructions up to AVX2": (1, MIDDLE, False),
    "instructions up to SSE4.1": (1, OLD, False),
}
"""What is changed: workers, environment, whether the order of tasks is turned."""


def outcomes(folder: Path, workers: int, environment: Mapping[str, str], turned: bool) -> pd.DataFrame:
    """The outcomes of one run from nothing, in an order of their own."""
    folder.mkdir(parents=True)
    study = STUDY | ({"tasks": STUDY["tasks"][::-1]} if turned else {})  # type: ignore[index]
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    command = [sys.executable, "-m", "mergerisk", "run", "study.yaml", "--out", "run", "--workers", str(workers)]
    subprocess.run(command, cwd=folder, env=os.environ | dict(environment), check=True, capture_output=True)
    found = pd.read_parquet(folder / "run" / "outcomes.parquet")
    return found.astype(dict.fromkeys(KEYS[:4], str)).sort_values(KEYS, ignore_index=True)


def settings(rows: pd.DataFrame) -> pd.Series[float]:
    """ASR per setting, of the images that both classify correctly when clean."""
    counted = rows[(rows["surrogate_clean"] == rows["label"]) & (rows["target_clean"] == rows["label"])]
    fooled = counted["target_adversarial"] != counted["label"]
    return fooled.astype(float).groupby([counted[name] for name in KEYS[:5]]).mean()


def main(place: Path) -> None:
    """Every run, compared with the first."""
    first = None
    for name, (workers, environment, turned) in RUNS.items():
        found = outcomes(place / name.replace(" ", "-"), workers, environment, turned)
        if first is None:
            first = found
            rates = settings(first)
            print(f"{len(first):,} outcomes, {len(rates)} settings")
            continue
        if not found[KEYS].equals(first[KEYS]):
            raise SystemExit(f"{name}: other images were attacked")
        if found.equals(first):
            print(f"{name}: equal in every column")
            continue
        other = (found[SAID] != first[SAID]).any(axis=1)
        moved = 100 * (settings(found) - rates).abs()
        print(
            f"{name}: a prediction differs in {other.sum():,} rows ({other.mean():.2%}); ASR of a setting by "
            f"{moved.mean():.2f} points in the mean, {moved.max():.1f} at most; of all by "
            f"{100 * abs(settings(found).mean() - rates.mean()):.3f}"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
