"""How much of what sets targets apart disappears once a diagnostic is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from mergerisk.errors import UserError
from mergerisk.statistics.explaining.rows import BLOCK, codes_of, complete, left_out

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mediated_share(
    table: pd.DataFrame,
    diagnostic: str,
    reference: str,
    *,
    outcome: str = "fooled",
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Of every target: by how much its outcomes differ from those of a reference target on the same images,
    attacks and budgets; how much of that remains in a model that knows the diagnostic too; and the share that
    disappears, 1 − direct / total (Baron and Kenny 1986, in linear models with a constant per image, attack and
    budget).

    That a share disappears says that the diagnostic *could* stand between; it says no more unless the two are
    moved (VanderWeele 2015). Targets are compared with the reference one at a time.

    Args:
        table: a row per task, attack, epsilon, target and image; see the package.
        diagnostic: a column of it that differs between a target's images.
        reference: the target that others are compared with.
        outcome: another column.
        confidence: of the intervals, over images in tasks, by a delete-a-group jackknife.
        seed: of its groups.

    Returns:
        A row per other target: ``target, total, total_low, total_high, direct, share, share_low, share_high``
        and ``rows``. The share is NaN where it cannot be told: where the total effect's interval holds 0, or the
        diagnostic differs by the same on all images.

    Raises:
        UserError: there is no such target.
    """
    rows = complete(table, [diagnostic, outcome])
    others = [target for target in rows["target"].unique() if target != reference]
    if len(others) == rows["target"].nunique():
        raise UserError(f"there is no target {reference!r} to compare with")
    return pd.DataFrame([_one(rows, diagnostic, reference, other, outcome, confidence, seed) for other in others])


def _one(
    rows: pd.DataFrame, diagnostic: str, reference: str, other: str, outcome: str, confidence: float, seed: int
) -> dict[str, object]:
    pair = rows[rows["target"].isin([reference, other])].reset_index(drop=True)
    sets, count = codes_of(pair, (*BLOCK, "image"))
    both = np.bincount(sets, minlength=count)[sets] == 2
    pair, sets = pair[both].reset_index(drop=True), sets[both]
    order = np.lexsort(((pair["target"] == other).to_numpy(), sets))
    pair = pair.iloc[order].reset_index(drop=True)
    # Two targets per set: a constant per set is the same as differences between the two.
    first, second = pair.iloc[0::2].reset_index(drop=True), pair.iloc[1::2]
    apart = second[outcome].to_numpy(dtype=np.float64) - first[outcome].to_numpy(dtype=np.float64)
    moved = second[diagnostic].to_numpy(dtype=np.float64) - first[diagnostic].to_numpy(dtype=np.float64)
    found: dict[str, object] = {"target": other, "rows": len(apart)}
    names = ("total", "total_low", "total_high", "direct", "share", "share_low", "share_high")
    if len(apart) < 3:
        return found | dict.fromkeys(names, np.nan)
    left = left_out(first, seed)
    every = _effects(apart, moved)
    without = np.full((3, len(left.counts), int(left.counts.max())), np.nan)
    for task, number in enumerate(left.counts):
        for group in range(number):
            keep = ~((left.tasks == task) & (left.groups == group))
            without[:, task, group] = _effects(apart[keep], moved[keep])
    reach = float(stats.t.isf((1 - confidence) / 2, max(1, left.freedom)))
    total, direct, share = every
    far = reach * left.error(without[0])
    found |= {"total": total, "total_low": total - far, "total_high": total + far, "direct": direct}
    told = not total - far <= 0 <= total + far
    wide = reach * left.error(without[2]) if told else np.nan
    value = share if told else np.nan
    return found | {"share": value, "share_low": value - wide, "share_high": value + wide}


def _effects(apart: NDArray[np.float64], moved: NDArray[np.float64]) -> NDArray[np.float64]:
    """Total effect, direct effect, and the share that disappears."""
    total = float(apart.mean())
    inside = moved - moved.mean()
    size = float(inside @ inside)
    slope = float(inside @ apart) / size if size > 0 else np.nan
    direct = total - slope * float(moved.mean())
    return np.array([total, direct, 1 - direct / total if total else np.nan])
