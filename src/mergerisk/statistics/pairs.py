"""Two methods on the same images: McNemar's test, setting by setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import bdtr
from scipy.stats import binom

from mergerisk.statistics.correction import benjamini_hochberg
from mergerisk.statistics.power import detectable_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from mergerisk.statistics.cell_means import Design
    from mergerisk.statistics.resampling import TaskOutcomes


def mcnemar(only_first: ArrayLike, only_second: ArrayLike, *, mid_p: bool = False) -> NDArray[np.float64]:
    """Two-sided exact p-values of McNemar's test (1947): a fair coin on the images that exactly one of two is
    fooled by.

    Args:
        only_first: counts, any shape.
        only_second: counts.
        mid_p: count what was seen by half (Fagerland, Lydersen and Laake 2013): less conservative, no longer
            guaranteed.
    """
    b, c = np.broadcast_arrays(np.asarray(only_first, dtype=np.int64), np.asarray(only_second, dtype=np.int64))
    fewer, total = np.minimum(b, c), b + c
    p = 2 * bdtr(fewer, total, 0.5)
    if mid_p:
        p -= binom.pmf(fewer, total, 0.5)
    return np.asarray(np.where(total == 0, 1.0, np.minimum(p, 1.0)), dtype=np.float64)


@dataclass(frozen=True)
class ImagePairs:
    """Two groups of settings compared image by image, wherever each unit has one setting of either.

    Attributes:
        settings: pairs of settings compared.
        higher: those in which the first fools significantly more images, by exact McNemar tests whose false
            discovery rate is held at the level.
        lower: significantly fewer.
        images: median number of images per pair that count for both.
        discordant: median share of those that exactly one of the two is fooled by.
        detectable: difference of rates that a test of so many images finds with a power of 80 %; NaN if none.
    """

    settings: int
    higher: int
    lower: int
    images: float
    discordant: float
    detectable: float


def mcnemar_table(design: Design, outcomes: Sequence[TaskOutcomes], denominator: str) -> pd.DataFrame:
    """One row per pair of settings.

    Args:
        design: of two treatments; its units name the seed too.
        outcomes: per task.
        denominator: ``both_correct`` (images that surrogate and target get right when clean, in both settings)
            or ``all``.

    Returns:
        The units' columns and ``images, both, only_first, only_second, rate_first, rate_second, p_value``.
    """
    blocks = []
    single = np.diff(np.append(design.starts, len(design.rows))) == 1
    row_of = np.full(len(design.units) * 2, -1)
    row_of[design.cells[single]] = design.rows[design.starts[single]]
    pairs = row_of.reshape(-1, 2)
    usable = (pairs >= 0).all(axis=1)
    for part in outcomes:
        units = np.flatnonzero(usable & (design.tasks == part.task))
        first, second = np.searchsorted(part.settings, pairs[units]).T
        kept = part.kept(denominator)
        eligible = kept[:, first] & kept[:, second]
        one, other = part.wrong[:, first] & eligible, part.wrong[:, second] & eligible
        block = design.units.iloc[units].reset_index(drop=True)
        block["images"] = eligible.sum(axis=0)
        block["both"] = (one & other).sum(axis=0)
        block["only_first"] = (one & ~other).sum(axis=0)
        block["only_second"] = (other & ~one).sum(axis=0)
        blocks.append(block)
    table = pd.concat(blocks, ignore_index=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        for name in ("first", "second"):
            table[f"rate_{name}"] = (table["both"] + table[f"only_{name}"]) / table["images"]
    table["p_value"] = mcnemar(table["only_first"], table["only_second"])
    return table


def image_pairs(table: pd.DataFrame, *, level: float = 0.05) -> ImagePairs | None:
    """A summary of :func:`mcnemar_table`; None of an empty one."""
    known = table[table["images"] > 0]
    if known.empty:
        return None
    found = benjamini_hochberg(known["p_value"].to_numpy()) < level
    first_more = (known["only_first"] > known["only_second"]).to_numpy()
    images = float(known["images"].median())
    discordant = float(((known["only_first"] + known["only_second"]) / known["images"]).median())
    return ImagePairs(
        len(known),
        int((found & first_more).sum()),
        int((found & ~first_more).sum()),
        images,
        discordant,
        detectable_share(int(images), discordant, level=level),
    )
