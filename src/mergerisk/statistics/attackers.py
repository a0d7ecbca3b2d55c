"""Whose attacks a claim is judged on: each surrogate by itself, the worst of them in every setting, all pooled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mergerisk.seeds import numpy_generator
from mergerisk.statistics.claim_tables import IDENTITY, Tables, tables_from_outcomes
from mergerisk.statistics.claims.claim import SURROGATE_COLUMNS
from mergerisk.statistics.claims.testing import bare, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from numpy.typing import NDArray

    from mergerisk.statistics.claims.claim import Claim

    Kind = Literal["worst", "one", "pooled", "all"]

WORST, POOLED = "worst attacker", "pooled"

_SETTING = ["task", "attack", "target", "epsilon"]
"""What a worst attacker is chosen for."""

_TIE = 1e-9
"""Weight of a surrogate's mean ASR in a choice between equal ones: below the distance of two shares of images."""


@dataclass(frozen=True, eq=False)
class Attacker:
    """One reading of a claim.

    Attributes:
        name: :data:`WORST`, a surrogate's name, :data:`POOLED`, or nothing where attackers do not matter.
        kind: ``worst``, ``one`` surrogate, ``pooled``, or ``all``: a claim that compares surrogates itself, or
            that speaks of nothing an attacker does.
        claim: about this attacker's settings alone.
        tables: that hold them.
        chosen: of the worst, how often it is which surrogate, as shares.
        spread: of the worst, what a bootstrap's deviations are multiplied by; see :func:`worst_attacker`.
    """

    name: str
    kind: Kind
    claim: Claim
    tables: Tables
    chosen: tuple[tuple[str, float], ...] = ()
    spread: float = 1.0


@dataclass(frozen=True, eq=False)
class Worst:
    """The study as the worst attacker's.

    Attributes:
        tables: of one surrogate, named after those it is the worst of.
        chosen: how often it is which, as shares.
        spread: what a bootstrap's deviations are multiplied by.
    """

    tables: Tables
    chosen: tuple[tuple[str, float], ...]
    spread: float


class Attackers:
    """The attackers of claims on the same tables; what claims share is chosen once.

    Args:
        tables: what is judged on.
        seed: of the halves; see :func:`worst_attacker`.
    """

    def __init__(self, tables: Tables, seed: int) -> None:
        self._tables, self._seed = tables, seed
        self._worst: dict[bytes, Worst] = {}

    def of(self, claim: Claim) -> tuple[Attacker, ...]:
        """Of one claim: the one its answer rests on first."""
        rates = self._tables.rates
        rows = settings_of(claim, rates)
        names = sorted(str(name) for name in rates.loc[rows, "surrogate"].unique())
        if not splits(claim):
            return (Attacker("", "all", claim, self._tables),)
        if len(names) < 2:
            return (Attacker(names[0] if names else "", "one", claim, self._tables),)
        key = rows.tobytes()
        if key not in self._worst:
            self._worst[key] = worst_attacker(self._tables, rows, self._seed)
        worst = self._worst[key]
        return (
            Attacker(WORST, "worst", _of_nobody(claim), worst.tables, worst.chosen, worst.spread),
            *(Attacker(name, "one", _of(claim, name), self._tables) for name in names),
            Attacker(POOLED, "pooled", claim, self._tables),
        )


def splits(claim: Claim) -> bool:
    """Whether a claim is judged attacker by attacker: not if it compares surrogates, or speaks of clean accuracy
    alone."""
    speaks_of_attacks = any(bare(measure) != "clean_accuracy" for measure in claim.measured)
    return speaks_of_attacks and not claim.compares_surrogates


def _of(claim: Claim, surrogate: str) -> Claim:
    return claim.model_copy(update={"where": {**claim.where, "surrogate": (surrogate,)}})


def _of_nobody(claim: Claim) -> Claim:
    where = {column: values for column, values in claim.where.items() if column not in SURROGATE_COLUMNS}
    return claim.model_copy(update={"where": where})


def worst_attacker(tables: Tables, rows: NDArray[np.bool_], seed: int) -> Worst:
    """The study as the worst attacker's: of every setting the surrogate with the highest ASR on the target.

    Where outcomes are known, the images of a task are split in halves by chance, and each half is judged under
    the surrogate that fools the target most often on the *other* half. A choice made on the images it is judged
    on would count luck as skill: with two equal surrogates, the larger of two noisy rates lies above both truths,
    and no interval around it, nor one that chooses anew in every resample, which adds the same luck once more,
    gets rid of that. The choice is then part of the data, and resampling does not change it. What resampling then
    misses is that the halves choose for each other: where surrogates are equal both halves come out high when they
    agree and low when they do not. Two sums as correlated as can be have twice the variance of independent ones,
    so deviations are multiplied by √(1 + u), where u is the share of settings whose two worst surrogates chance
    could have swapped (two-proportion z below 1.96). Of rates alone the choice can only be made on the rates
    themselves; that leans high where surrogates are close.

    Args:
        tables: of several surrogates.
        rows: the settings to choose among.
        seed: of the halves, which belong to (seed, task).

    """
    rates = tables.rates
    here = np.flatnonzero(rows)
    table = rates.iloc[here]
    names = sorted(str(name) for name in table["surrogate"].unique())
    label = f"the worst of {', '.join(names)}"
    group = table.groupby(_SETTING, sort=True, dropna=False, observed=True).ngroup().to_numpy(dtype=np.intp)
    owner = np.searchsorted(names, table["surrogate"].to_numpy(dtype=str))
    model = table.groupby(["task", "target"], sort=True, observed=True).ngroup().to_numpy(dtype=np.intp)
    groups, models = int(group.max(initial=-1)) + 1, int(model.max(initial=-1)) + 1
    model_of_group = np.zeros(groups, dtype=np.intp)
    model_of_group[group] = model
    shape = (groups, models, len(names))
    if tables.outcomes is None or tables.setting_of is None or tables.happened is None:
        known = "asr" if table["asr"].notna().any() else "asr_all"
        values = table[known].to_numpy(dtype=np.float64)
        trials = (~np.isnan(values)).astype(np.float64)
        (choice,) = _choices(group, owner, model_of_group, shape, [np.nan_to_num(values)], [trials])
        kept = here[owner == choice[group]]
        found = rates.iloc[kept].assign(surrogate=label, surrogate_role="other")
        found = found.sort_values(IDENTITY, kind="stable").reset_index(drop=True)
        counts = np.bincount(owner[owner == choice[group]], minlength=len(names))
        return Worst(Tables(found, None, None, tables.source, tables.notes), _shares(names, counts), 1.0)
    outcomes = tables.outcomes
    place = np.full(len(rates), -1)
    place[here] = np.arange(len(here))
    of_row = place[tables.setting_of]
    used = np.flatnonzero(of_row >= 0)
    setting, half = of_row[used], _halves(outcomes, seed)[used]
    happened = tables.happened.of(used)
    hits, trials_of = (
        [
            np.bincount(setting[which_count & (half == which)], minlength=len(here)).astype(np.float64)
            for which in (0, 1)
        ]
        for which_count in (happened.fooled, happened.counts)
    )
    choices = _choices(group, owner, model_of_group, shape, hits, trials_of)
    other = np.stack(choices)[1 - half, group[setting]]
    mine = owner[setting] == other
    taken = used[mine]
    chosen = outcomes.iloc[taken].assign(surrogate=label)
    found_tables = tables_from_outcomes(
        chosen.reset_index(drop=True),
        merges=rates.loc[rates["target_role"] == "merge", "target"].unique(),
        source=tables.source,
    )
    keys = ["task", "target", "seed"]
    clean = rates[[*keys, "clean_accuracy"]].drop_duplicates(keys)
    accuracy = found_tables.rates[keys].merge(clean, how="left", on=keys)["clean_accuracy"].to_numpy()
    worst = replace(found_tables, rates=found_tables.rates.assign(clean_accuracy=accuracy), notes=tables.notes)
    worst = worst.with_means(tables.measured)
    shares = _shares(names, np.bincount(owner[setting[mine]], minlength=len(names)))
    return Worst(
        worst,
        shares,
        float(np.sqrt(1 + _unclear(group, owner, shape, hits[0] + hits[1], trials_of[0] + trials_of[1]))),
    )


def _unclear(
    group: NDArray[Any],
    owner: NDArray[Any],
    shape: tuple[int, int, int],
    hits: NDArray[np.float64],
    trials: NDArray[np.float64],
) -> float:
    """The share of groups in which chance could have swapped the two surrogates with the highest ASRs."""
    groups, _, surrogates = shape
    if surrogates < 2:
        return 0.0
    cell = group * surrogates + owner
    k, n = (np.bincount(cell, part, minlength=groups * surrogates).reshape(groups, -1) for part in (hits, trials))
    rate = np.divide(k, n, out=np.full_like(k, -1.0), where=n > 0)
    order = np.argsort(-rate, axis=1, kind="stable")[:, :2]
    (k1, k2), (n1, n2) = (np.take_along_axis(part, order, axis=1).T for part in (k, n))
    several = (n1 > 0) & (n2 > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = (k1 + k2) / (n1 + n2)
        z = (k1 / n1 - k2 / n2) / np.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    unclear = several & ~(z >= _BY_CHANCE)
    return float(unclear.sum() / max(groups, 1))


_BY_CHANCE = 1.96


def _choices(
    group: NDArray[Any],
    owner: NDArray[Any],
    model_of_group: NDArray[np.intp],
    shape: tuple[int, int, int],
    hits: Sequence[NDArray[np.float64]],
    trials: Sequence[NDArray[np.float64]],
) -> list[NDArray[np.intp]]:
    """Per part of the images, which surrogate each group's worst one is; equals are told apart by their mean ASR
    on the same target, then by name.

    Args:
        group: of every setting.
        owner: its surrogate.
        model_of_group: task and target of every group.
        shape: number of groups, of tasks and targets, and of surrogates.
        hits: per part, of every setting, how many images are fooled;
        trials: out of how many.
    """
    groups, models, surrogates = shape
    cell = group * surrogates + owner
    found = []
    present = np.bincount(cell, minlength=groups * surrogates).reshape(groups, surrogates) > 0
    for fooled, of in zip(hits, trials, strict=True):
        sums, counts = (
            np.bincount(cell, values, minlength=groups * surrogates).reshape(groups, surrogates)
            for values in (fooled, of)
        )
        rate = np.divide(sums, counts, out=np.full_like(sums, -1.0), where=counts > 0)
        wide = np.zeros((2, models, surrogates))
        np.add.at(wide[0], model_of_group, np.where(counts > 0, rate, 0.0))
        np.add.at(wide[1], model_of_group, (counts > 0).astype(np.float64))
        mean = np.divide(wide[0], wide[1], out=np.zeros_like(wide[0]), where=wide[1] > 0)
        score = np.where(present, rate + _TIE * mean[model_of_group], -np.inf)
        found.append(score.argmax(axis=1))
    return found


def _halves(outcomes: pd.DataFrame, seed: int) -> NDArray[np.intp]:
    """Per outcome 0 or 1: in which half of its task's images it is."""
    task, names = pd.factorize(outcomes["task"])
    image = outcomes["image"].to_numpy()
    half = np.zeros(len(outcomes), dtype=np.intp)
    for number, name in enumerate(names):
        here = np.flatnonzero(task == number)
        place, images = pd.factorize(image[here], sort=True)
        order = numpy_generator(seed, "halves", name).permutation(len(images))
        half[here] = (order % 2)[place]
    return half


def _shares(names: Sequence[str], counts: NDArray[Any]) -> tuple[tuple[str, float], ...]:
    total = max(float(counts.sum()), 1.0)
    shares = [(name, float(count) / total) for name, count in zip(names, counts, strict=True)]
    return tuple(sorted(shares, key=lambda item: -item[1]))
