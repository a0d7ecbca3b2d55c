"""The published table of the poster that started this: white-box and transfer attacks on two merged models.

AsiaCCS 2025, doi 10.1145/3708821.3735347: three data sets, four attacks, four surrogates and four targets; the
share of a whole test set that a target gets wrong under attack, in percent.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from mergerisk.statistics.claim_tables import IDENTITY, Tables, tables_from_rates

CITATION = "AsiaCCS 2025 poster, doi 10.1145/3708821.3735347"
"""Where the published table is from."""
IMAGES = {"cars": 8041, "eurosat": 5400, "mnist": 10000}
"""Images of each whole test set."""

_NOTES = (
    f"published table: {CITATION}; asr_all on whole test sets",
    "images per cell: " + ", ".join(f"{task} {count:,}" for task, count in IMAGES.items()),
    "the pretrained model as a target is near 100 % from everywhere: no claim rests on it",
)


def poster_tables() -> Tables:
    """The poster's table, which ships with the package."""
    path = Path(str(resources.files("mergerisk.statistics") / "data" / "poster_asr.csv"))
    found = tables_from_rates(pd.read_csv(path), source="poster")
    return Tables(found.rates, None, None, "poster", _NOTES)


def with_known_images(tables: Tables) -> Tables:
    """The same; if it is the poster's table without its numbers of images, with them."""
    published = poster_tables()
    ours, theirs = tables.rates, published.rates
    same = (
        len(ours) == len(theirs)
        and ours[IDENTITY].equals(theirs[IDENTITY])
        and np.allclose(ours["asr_all"], theirs["asr_all"], atol=1e-9, equal_nan=True)
    )
    return Tables(theirs, None, None, tables.source, _NOTES) if same else tables
