"""What claims are judged on: rates of every setting, and outcomes per image where a study kept them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.errors import UserError
from mergerisk.statistics.columns import recognise
from mergerisk.statistics.diagnostics import means_of_settings
from mergerisk.statistics.intervals import wilson_interval
from mergerisk.transfer.rates import accuracies, count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.diagnostics import Diagnostics, Per
    from mergerisk.transfer.rates import Counted, Happened

EXPERTS = frozenset({"expert", "finetuned", "fine_tuned", "individual"})
PRETRAINED = frozenset({"pretrained", "pre_trained", "zero_shot", "zeroshot", "base"})
"""What tables call the ingredients, in lower case."""

IDENTITY = ["task", "attack", "surrogate", "target", "epsilon", "seed"]
"""The columns that name a row."""

SATURATED, NEAR_ZERO = 0.99, 0.01
"""ASRs from which, and up to which, a setting tells methods apart no more."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Rates of every setting.

    Attributes:
        rates: one row per setting, in a fixed order: ``task, attack, surrogate, target``, ``epsilon`` (NaN if
            there is none), ``seed``, ``images``, ``images_both_correct`` (NaN where unknown), the rates
            ``asr, surrogate_asr, relative_asr`` and the same with ``_all`` (shares; NaN where unknown),
            ``delta_asr, delta_asr_all`` in percentage points, ``clean_accuracy`` of the target; derived from
            names: ``method`` and ``correction`` (``ties+surgery`` is ``ties`` with ``surgery``, else ``none``),
            ``surrogate_role`` and ``target_role`` (``expert``, ``pretrained``, ``merge`` or ``other``).
        outcomes: what was predicted per image, one row per setting and image; None where only rates are known.
        setting_of: per row of ``outcomes`` its row in ``rates``; None likewise.
        source: where it all comes from, in words.
        notes: what a reader must know of how it was read.
        happened: per row of ``outcomes`` who counts and who is fooled; None likewise.
        diagnostics: what the run measured of surrogates and targets; None of a run without ``causes``.
        measured: measures of diagnostics that are columns of ``outcomes`` and, as means over the images that
            count, of ``rates``; see :meth:`measuring`.
    """

    rates: pd.DataFrame
    outcomes: pd.DataFrame | None
    setting_of: NDArray[np.intp] | None
    source: str
    notes: tuple[str, ...] = ()
    happened: Happened | None = None
    diagnostics: Diagnostics | None = None
    measured: Mapping[str, Per] = field(default_factory=dict)

    def measuring(self, names: Iterable[str]) -> Tables:
        """The same with some of the diagnostics' measures, as far as there are any, as columns."""
        if self.diagnostics is None or self.outcomes is None:
            return self
        known = self.diagnostics.measures
        new = {name: known[name] for name in names if name in known and name not in self.measured}
        if not new:
            return self
        outcomes = self.outcomes.assign(**self.diagnostics.beside(self.outcomes, new))
        return replace(self, outcomes=outcomes).with_means({**self.measured, **new})

    def with_means(self, measured: Mapping[str, Per]) -> Tables:
        """The same with means of the measures that ``outcomes`` has as columns."""
        outcomes, codes, happened = self.outcomes, self.setting_of, self.happened
        if outcomes is None or codes is None or happened is None:
            return self
        means = {
            name: means_of_settings(outcomes[name].to_numpy(np.float64), happened.counts, codes, len(self.rates))
            for name in measured
        }
        return replace(self, rates=self.rates.assign(**means), measured=measured)

    @property
    def denominators(self) -> tuple[str, ...]:
        """Which ASRs are known: ``both_correct`` first, ``all``."""
        known = (("both_correct", "asr"), ("all", "asr_all"))
        return tuple(name for name, column in known if self.rates[column].notna().any())


def tables_from_outcomes(
    outcomes: pd.DataFrame,
    clean: pd.DataFrame | None = None,
    *,
    merges: Iterable[str] | None = None,
    source: str = "outcomes",
    counted: Counted | None = None,
    diagnostics: Diagnostics | None = None,
) -> Tables:
    """From a study's outcomes.

    Args:
        outcomes: per image; see :mod:`mergerisk.transfer.rates`.
        clean: predictions on whole test splits, for clean accuracies; those on attacked images otherwise.
        merges: names of the merges; every target that is no ingredient by default.
        source: where the outcomes come from, in words.
        counted: :func:`mergerisk.transfer.count` of the outcomes, where somebody has them already.
        diagnostics: of the same run.
    """
    known = count(outcomes) if counted is None else counted
    found = known.rates.copy()
    wrong = np.bincount(known.setting_of[known.happened.surrogate_wrong], minlength=len(found))
    found["surrogate_asr_all"] = wrong / found["images"].to_numpy()
    found["clean_accuracy"] = found["clean_accuracy_target"]
    if clean is not None:
        whole = accuracies(clean).rename(columns={"model": "target", "accuracy": "whole"})
        merged = found[["task", "target", "seed"]].merge(whole, how="left", on=["task", "target", "seed"])
        found["clean_accuracy"] = merged["whole"].fillna(found["clean_accuracy"])
    table, order = _finish(found, merges)
    place = np.empty(len(order), dtype=np.intp)
    place[order] = np.arange(len(order))
    codes = place[known.setting_of]
    notes = ("clean accuracies are of whole test splits",) if clean is not None else ()
    return Tables(table, outcomes, codes, source, notes, known.happened, diagnostics)


def tables_from_rates(
    frame: pd.DataFrame, *, merges: Iterable[str] | None = None, source: str = "table"
) -> Tables:
    """From a long table of rates; see :func:`mergerisk.statistics.recognise`.

    What a surrogate's own ASR is, if no column says it, is taken from the row whose target is the surrogate.

    Args:
        frame: one row per setting.
        merges: names of the merges; every target that is no ingredient by default.
        source: the table's name, for messages.

    Raises:
        UserError: a column is missing or wrong, or a setting stands there twice.
    """
    table = recognise(frame, source)
    notes = []
    if "steps" in table and table.groupby("attack")["steps"].nunique().max() > 1:
        table = table[table["steps"] == table.groupby("attack")["steps"].transform("max")].reset_index(drop=True)
        notes.append("of every attack only the largest number of steps counts")
    defaults = {"epsilon": np.nan, "seed": 0, "images": np.nan, "images_both_correct": np.nan}
    for name in ("epsilon", "seed", "images", "images_both_correct", "asr", "asr_all", "clean_accuracy"):
        if name not in table:
            table[name] = defaults.get(name, np.nan)
    twice = table.duplicated(IDENTITY)
    if twice.any():
        row = table.loc[twice, IDENTITY].iloc[0].dropna()
        raise UserError(f"{source}: the setting {', '.join(f'{k} {v}' for k, v in row.items())} is given twice")
    for own, of in (("surrogate_asr", "asr"), ("surrogate_asr_all", "asr_all")):
        if own not in table:
            table[own] = _white_box(table, of)
    if table[["asr", "asr_all"]].isna().all(axis=None):
        raise UserError(f"{source}: its column of rates is empty")
    if table["asr"].notna().any():
        notes.append("asr is taken as among the images that surrogate and target get right when clean")
    return Tables(_finish(table, merges)[0], None, None, source, tuple(notes))


def _white_box(table: pd.DataFrame, rate: str) -> NDArray[np.float64]:
    """Per row, the rate of its surrogate as a target under the same attack."""
    keys = [name for name in IDENTITY if name != "target"]
    own = table.loc[table["surrogate"] == table["target"], [*keys, rate]]
    found = table[keys].merge(own, how="left", on=keys)
    return found[rate].to_numpy(dtype=np.float64)


def _finish(table: pd.DataFrame, merges: Iterable[str] | None) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """Derived columns, in an order that does not depend on the given one; and where each row was."""
    with np.errstate(divide="ignore", invalid="ignore"):
        for ending in ("", "_all"):
            rate, own = (table[f"{name}{ending}"].to_numpy(dtype=np.float64) for name in ("asr", "surrogate_asr"))
            table[f"relative_asr{ending}"] = np.where(own > 0, rate / own, np.nan)
            table[f"delta_asr{ending}"] = 100 * (rate - own)
    known = None if merges is None else frozenset(merges)
    for side in ("surrogate", "target"):
        roles = {name: role(name, known) for name in table[side].unique()}
        table[f"{side}_role"] = table[side].map(roles)
    parts = {name: split_correction(name) for name in table["target"].unique()}
    table["method"] = table["target"].map({name: method for name, (method, _) in parts.items()})
    table["correction"] = table["target"].map({name: correction for name, (_, correction) in parts.items()})
    columns = [
        *IDENTITY, "images", "images_both_correct", "asr", "surrogate_asr", "relative_asr", "delta_asr",
        "asr_all", "surrogate_asr_all", "relative_asr_all", "delta_asr_all", "clean_accuracy",
        "method", "correction", "surrogate_role", "target_role",
    ]  # fmt: skip
    ordered = table[columns].sort_values(IDENTITY, kind="stable")
    return ordered.reset_index(drop=True), ordered.index.to_numpy()


def role(name: str, merges: frozenset[str] | None = None) -> str:
    """``expert``, ``pretrained``, ``merge`` or, of a study whose merges are known, ``other``."""
    plain = name.lower().replace("-", "_").replace(" ", "_")
    if plain in EXPERTS:
        return "expert"
    if plain in PRETRAINED:
        return "pretrained"
    return "merge" if merges is None or name in merges else "other"


def split_correction(name: str) -> tuple[str, str]:
    """``ties+surgery`` as ``("ties", "surgery")``; ``ties`` and ``AdaMerging++`` have no correction."""
    method, plus, correction = name.rpartition("+")
    return (method, correction) if plus and method.strip("+") and correction else (name, "none")


@dataclass(frozen=True)
class Saturation:
    """How many settings tell methods apart no more.

    Attributes:
        cells: settings with a known rate.
        saturated: those with ASR of at least 99 %, or whose 95 % Wilson interval reaches 1.
        near_zero: those with ASR of at most 1 %, or whose interval reaches 0.
        mostly: whether more than half are either.
    """

    cells: int
    saturated: int
    near_zero: int

    @property
    def mostly(self) -> bool:
        """Whether more than half of the settings are at one of the ends."""
        return 2 * (self.saturated + self.near_zero) > self.cells


def saturation(table: pd.DataFrame, denominator: str) -> Saturation:
    """Of some rows of :class:`Tables`' rates.

    Args:
        table: the rows.
        denominator: ``both_correct`` or ``all``.
    """
    rate, count = ("asr", "images_both_correct") if denominator == "both_correct" else ("asr_all", "images")
    known = table[table[rate].notna()]
    shares = known[rate].to_numpy(dtype=np.float64)
    trials = known[count].to_numpy(dtype=np.float64)
    low, high = wilson_interval(np.rint(shares * trials), trials)
    return Saturation(
        len(known),
        int(((shares >= SATURATED) | (high >= 1)).sum()),
        int(((shares <= NEAR_ZERO) | (low <= 0)).sum()),
    )
