"""Write ``posthocs.json``: tests of rank matrices by scikit-posthocs and statsmodels, outside implementations.

Neither is a dependency. To make the file again, in an environment of its own with Python 3.11, run from the
repository root::

    pip install scikit-posthocs==0.17.1 statsmodels==0.15.0
    python -m tests.vectors.make_posthocs_vectors

How they map to this project's definitions:

nemenyi   ``posthoc_nemenyi_friedman``: the same.
conover   ``posthoc_conover_friedman`` with ``p_adjust=None``: the same.
mcnemar   statsmodels' ``mcnemar`` with ``exact=True``: the same.
holm, bh  statsmodels' ``multipletests``: the same.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scikit_posthocs import posthoc_conover_friedman, posthoc_nemenyi_friedman
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

SEED = 5


def matrices() -> list[list[list[float]]]:
    """Blocks × treatments: without ties, with many, and with a clear winner."""
    random = np.random.default_rng(SEED)
    plain = random.normal(size=(12, 5)) + np.linspace(0, 1, 5)
    tied = random.integers(0, 4, size=(15, 4)) / 4
    clear = random.normal(size=(9, 6)) + 3 * (np.arange(6) == 2)
    return [matrix.round(6).tolist() for matrix in (plain, tied, clear)]


def main() -> None:
    """Make and write the vectors."""
    random = np.random.default_rng(SEED + 1)
    cases: list[dict[str, Any]] = []
    for matrix in matrices():
        values = np.array(matrix)
        cases.append(
            {
                "matrix": matrix,
                "nemenyi": np.asarray(posthoc_nemenyi_friedman(values)).tolist(),
                "conover": np.asarray(posthoc_conover_friedman(values, p_adjust=None)).tolist(),
            }
        )
    counts = [(0, 0), (0, 5), (3, 9), (12, 11), (40, 70), (150, 86)]
    p_values = np.sort(random.uniform(0, 0.2, 9)).tolist()
    random.shuffle(p_values)
    document = {
        "versions": {name: version(name) for name in ("scikit-posthocs", "statsmodels", "scipy", "numpy")},
        "cases": cases,
        "mcnemar": [[b, c, float(mcnemar([[10, b], [c, 10]], exact=True).pvalue)] for b, c in counts],
        "p_values": p_values,
        "holm": multipletests(p_values, method="holm")[1].tolist(),
        "bh": multipletests(p_values, method="fdr_bh")[1].tolist(),
    }
    Path(__file__).with_name("posthocs.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
