"""Diagnostics beside outcomes: from what a run keeps to the one table that explanations start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from mergerisk.errors import UserError
from mergerisk.transfer import accuracies, final_iterates, what_happened

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

THE_OUTCOME_ITSELF = frozenset({"same_mistake", "other_mistake", "not_fooled"})
"""Measures that say of attacked images what the target says: nothing is explained by itself."""

_COUNTS = frozenset({"undefined_cosines"})
"""Measures that only count what is missing."""

CLEAN = "clean_accuracy"
"""The covariate: the target's accuracy on the task's whole test split."""

PAIR = ["task", "surrogate", "target", "seed"]
"""What names a pair of models."""

_WHOLE = ("features", "all")
"""Parts of a pair of models that stand for the whole of it, the one that is taken first."""


@dataclass(frozen=True)
class Measure:
    """A column of a diagnostic that is held against outcomes.

    Attributes:
        name: of the column.
        per: whether it has a value per image, or one per pair of models.
        part: of a pair of models, which part the value is of: ``mean`` of all parts, where none stands for all.
    """

    name: str
    per: Literal["image", "pair"]
    part: str = ""


@dataclass(frozen=True, eq=False)
class Beside:
    """Diagnostics beside outcomes.

    Attributes:
        rows: a row per attacked image, target, surrogate, attack, budget (and seed, which is part of ``attack``
            where there are several) that counts: ``surrogate, task, attack, epsilon, target, image, fooled,
            clean_accuracy`` and a column per measure, NaN where it is missing.
        targets: that are compared, in the order given.
        measures: that can be held against outcomes.
        missing: (surrogate, target, measure) → reason → how many of its values that is the reason of.
    """

    rows: pd.DataFrame
    targets: tuple[str, ...]
    measures: tuple[Measure, ...]
    missing: Mapping[tuple[str, str, str], Mapping[str, int]]

    def clipped(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Some rows with each measure of images clipped to the middle 98 % of its task's values, so that a mean is
        that of most images: ratios of gradients can be thousands of times as large on a few."""
        names = [measure.name for measure in self.measures if measure.per == "image"]
        if not names:
            return rows
        once = rows.drop_duplicates(["surrogate", "task", "target", "image"])
        low, high = (once.groupby("task")[names].quantile(share) for share in (0.01, 0.99))
        return rows.assign(
            **{name: rows[name].clip(rows["task"].map(low[name]), rows["task"].map(high[name])) for name in names}
        )

    def of(self, surrogate: str) -> pd.DataFrame:
        """The rows of one surrogate's attacks."""
        return self.rows[self.rows["surrogate"] == surrogate].reset_index(drop=True)


def beside(
    outcomes: pd.DataFrame,
    causes: pd.DataFrame,
    pair_causes: pd.DataFrame | None = None,
    clean: pd.DataFrame | None = None,
    *,
    targets: Collection[str] | None = None,
) -> Beside:
    """Diagnostics of the images that count, beside what became of them.

    Args:
        outcomes: per image, as a run keeps them; who counts and who is fooled:
            :func:`mergerisk.transfer.what_happened`.
        causes: per attacked image, surrogate and target, as a run keeps them.
        pair_causes: per surrogate, target, measure and part; may be left out.
        clean: predictions on whole test splits; by default accuracy is that on the attacked images.
        targets: that are compared; by default all. A model that is the surrogate itself is never among them.

    Raises:
        UserError: nothing is left, or there is no diagnostic.
    """
    happened = what_happened(outcomes)
    keep = happened.counts & final_iterates(outcomes)
    keep &= (outcomes["target"].astype(str) != outcomes["surrogate"].astype(str)).to_numpy()
    if targets is not None:
        keep &= outcomes["target"].isin(list(targets)).to_numpy()
    names = ["surrogate", "task", "attack", "epsilon", "target", "image", "seed"]
    rows = outcomes.loc[keep, names].reset_index(drop=True)
    if rows.empty:
        raise UserError("no target is attacked that diagnostics could be held against")
    rows = rows.astype(dict.fromkeys(("surrogate", "task", "attack", "target"), str))
    rows["fooled"] = happened.fooled[keep]
    rows[CLEAN] = _accuracy(outcomes, happened.target_right, clean, rows)
    measures = [Measure(name, "image") for name in columns_of(causes)]
    rows = rows.merge(
        with_text_names(causes)[[*PAIR, "image", *(m.name for m in measures)]], "left", [*PAIR, "image"]
    )
    missing = _missing(causes, measures, set(rows["target"]))
    if pair_causes is not None and len(pair_causes):
        wide, own = per_pair(pair_causes)
        rows = rows.merge(wide, "left", PAIR)
        measures += own
        missing |= _missing_pairs(pair_causes, own, set(rows["target"]))
    if not measures:
        raise UserError("no diagnostic has a column that can be held against outcomes")
    if rows["seed"].nunique() > 1:
        rows["attack"] = rows["attack"] + ", seed " + rows["seed"].astype(str)
    there = dict.fromkeys(rows["target"])
    order = tuple(there if targets is None else (name for name in targets if name in there))
    return Beside(rows.drop(columns="seed"), order, tuple(measures), missing)


def with_text_names(table: pd.DataFrame) -> pd.DataFrame:
    """Names as text, whatever categories a table keeps them in."""
    return table.astype(dict.fromkeys(("task", "surrogate", "target"), str))


def columns_of(causes: pd.DataFrame) -> list[str]:
    """The measures of ``causes.parquet`` that can be held against outcomes."""
    names = [str(name) for name in causes.columns if f"{name}_missing" in causes.columns]
    return [name for name in names if name not in THE_OUTCOME_ITSELF | _COUNTS]


def per_pair(pair_causes: pd.DataFrame) -> tuple[pd.DataFrame, list[Measure]]:
    """One column per measure, and which part it is of."""
    plain = with_text_names(pair_causes).astype({"measure": str, "part": str})
    measures, found = [], []
    for name, own in plain.groupby("measure", sort=False):
        if name in THE_OUTCOME_ITSELF | _COUNTS:
            continue
        part = next((part for part in _WHOLE if (own["part"] == part).any()), "mean")
        chosen = own if part == "mean" else own[own["part"] == part]
        measures.append(Measure(str(name), "pair", part))
        found.append(chosen.groupby(PAIR)["value"].mean().rename(name))
    return pd.concat(found, axis=1).reset_index() if found else pd.DataFrame(columns=PAIR), measures


def _accuracy(
    outcomes: pd.DataFrame, right: NDArray[np.bool_], clean: pd.DataFrame | None, rows: pd.DataFrame
) -> NDArray[np.float64]:
    keys = ["task", "target", "seed"]
    if clean is None:
        own = outcomes[keys].astype({"task": str, "target": str}).assign(accuracy=right)
        table = own.groupby(keys)["accuracy"].mean().reset_index()
    else:
        table = accuracies(clean).rename(columns={"model": "target"})[[*keys, "accuracy"]]
    found: NDArray[np.float64] = rows[keys].merge(table, "left", keys)["accuracy"].to_numpy(np.float64)
    return found


def _missing(
    causes: pd.DataFrame, measures: list[Measure], targets: set[str]
) -> dict[tuple[str, str, str], Mapping[str, int]]:
    own = causes[causes["target"].isin(targets)]
    return {
        (str(surrogate), str(target), measure.name): _reasons(rows[f"{measure.name}_missing"])
        for (surrogate, target), rows in own.groupby(["surrogate", "target"], observed=True)
        for measure in measures
    }


def _missing_pairs(
    pair_causes: pd.DataFrame, measures: list[Measure], targets: set[str]
) -> dict[tuple[str, str, str], Mapping[str, int]]:
    own = pair_causes[pair_causes["target"].isin(targets)]
    part_of = {measure.name: measure.part for measure in measures}
    found: dict[tuple[str, str, str], Mapping[str, int]] = {}
    for (surrogate, target, name), rows in own.groupby(["surrogate", "target", "measure"], observed=True):
        if name in part_of:
            keep = np.ones(len(rows), dtype=bool) if part_of[name] == "mean" else rows["part"] == part_of[name]
            found[str(surrogate), str(target), str(name)] = _reasons(rows["missing"][keep])
    return found


def _reasons(said: pd.Series[str]) -> dict[str, int]:
    counts = said[said.fillna("") != ""].value_counts()
    return {str(why): int(count) for why, count in counts.items() if count}
