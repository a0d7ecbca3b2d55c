"""Outcomes per image → rates per setting.

An outcome row holds ``task, attack, surrogate, target, epsilon, seed, steps, image, label`` and what was
predicted: ``surrogate_clean, target_clean, surrogate_adversarial, target_adversarial``, a class or
:data:`~mergerisk.attacks.REJECTED`; besides ``aimed_at``, the
label a targeted attack wants (−1 for an untargeted one), ``l2`` and ``linf`` of the perturbation, in pixel units,
and ``zero_gradients``, the steps of the whole attack at which crafting met an all-zero gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mergerisk.attacks.rejected import REJECTED

if TYPE_CHECKING:
    from numpy.typing import NDArray

SETTING = ["task", "attack", "surrogate", "target", "epsilon", "seed", "steps"]
"""The columns that name a setting."""

CURVE = ["task", "attack", "surrogate", "target", "seed", "steps"]
"""The columns that name a curve: a setting without its budget."""


@dataclass(frozen=True, eq=False)
class Happened:
    """Who counts and who is fooled, one entry per outcome: the definition on which every rate rests.

    Attributes:
        surrogate_right: the surrogate names the label of the clean image.
        target_right: the target does.
        surrogate_wrong: the surrogate names another class than the label of the attacked image. Who rejects an
            image has not named one.
        target_wrong: the target does.
    """

    surrogate_right: NDArray[np.bool_]
    target_right: NDArray[np.bool_]
    surrogate_wrong: NDArray[np.bool_]
    target_wrong: NDArray[np.bool_]

    @property
    def counts(self) -> NDArray[np.bool_]:
        """Surrogate and target are both right when clean: the images that ASR is a share of."""
        return self.surrogate_right & self.target_right

    @property
    def fooled(self) -> NDArray[np.bool_]:
        """Of those that count: the target is wrong under attack."""
        return self.counts & self.target_wrong

    @property
    def surrogate_fooled(self) -> NDArray[np.bool_]:
        """Of those that count: the surrogate is wrong under attack."""
        return self.counts & self.surrogate_wrong

    def of(self, rows: NDArray[np.intp]) -> Happened:
        """The same for some of the outcomes."""
        return Happened(
            self.surrogate_right[rows],
            self.target_right[rows],
            self.surrogate_wrong[rows],
            self.target_wrong[rows],
        )


def what_happened(outcomes: pd.DataFrame) -> Happened:
    """Who counts and who is fooled.

    Args:
        outcomes: per image, with ``label`` and the four columns of predictions.
    """
    label = outcomes["label"].to_numpy()

    def wrong(who: str) -> NDArray[np.bool_]:
        said = outcomes[f"{who}_adversarial"].to_numpy()
        found: NDArray[np.bool_] = (said != label) & (said != REJECTED)
        return found

    return Happened(
        outcomes["surrogate_clean"].to_numpy() == label,
        outcomes["target_clean"].to_numpy() == label,
        wrong("surrogate"),
        wrong("target"),
    )


@dataclass(frozen=True, eq=False)
class Counted:
    """What is counted once and used by several tables of a study.

    Attributes:
        rates: see :func:`rates`.
        setting_of: per outcome its setting's row of ``rates``.
        happened: per outcome who counts and who is fooled.
    """

    rates: pd.DataFrame
    setting_of: NDArray[np.intp]
    happened: Happened


def rates(outcomes: pd.DataFrame) -> pd.DataFrame:
    """One row per setting, in order of appearance.

    Columns beside the setting's, all rates in [0, 1], NaN where nothing counts:
        images: all attacked images.
        images_both_correct: those that surrogate and target classify correctly when clean.
        images_both_fooled: among those, the ones that surrogate and target both get wrong under attack.
        clean_accuracy_surrogate, clean_accuracy_target: on the attacked images.
        asr: among ``images_both_correct``, the share the target gets wrong under attack. The primary rate.
        asr_all: among all images, the share the target gets wrong under attack; clean errors count.
        surrogate_asr: among ``images_both_correct``, the share the surrogate gets wrong under attack.
        relative_asr: asr / surrogate_asr.
        delta_asr: asr − surrogate_asr, in percentage points.
        same_mistake: among ``images_both_correct`` that fool both, the share with the same wrong label.
        targeted_success: among ``images_both_correct``, the share the target takes for the class a targeted
            attack aims at.
        mean_l2: of the perturbations, in pixel units, over all images.
        zero_gradient_images: at how many images crafting met an all-zero gradient.
    """
    return count(outcomes).rates


def count(outcomes: pd.DataFrame) -> Counted:
    """:func:`rates`, and which outcome belongs to which of them."""
    happened = what_happened(outcomes)
    aimed_at, said = outcomes["aimed_at"].to_numpy(), outcomes["target_adversarial"].to_numpy()
    both_fooled = happened.fooled & happened.surrogate_wrong
    counted = {
        "images_both_correct": happened.counts,
        "surrogate_right": happened.surrogate_right,
        "target_right": happened.target_right,
        "fooled": happened.fooled,
        "wrong": happened.target_wrong,
        "surrogate_fooled": happened.surrogate_fooled,
        "both_fooled": both_fooled,
        "same": both_fooled & (outcomes["surrogate_adversarial"].to_numpy() == said),
        "aimed": happened.counts & (aimed_at >= 0),
        "hit": happened.counts & (said == aimed_at),
        "zero_gradient_images": outcomes["zero_gradients"].to_numpy() > 0,
    }
    codes, table = _settings_of(outcomes)
    n = np.bincount(codes, minlength=len(table))
    grouped = {name: np.bincount(codes[part], minlength=len(table)) for name, part in counted.items()}
    both = grouped["images_both_correct"]
    table["images"] = n
    table["images_both_correct"] = both
    table["images_both_fooled"] = grouped["both_fooled"]
    table["clean_accuracy_surrogate"] = _share(grouped["surrogate_right"], n)
    table["clean_accuracy_target"] = _share(grouped["target_right"], n)
    table["asr"] = _share(grouped["fooled"], both)
    table["asr_all"] = _share(grouped["wrong"], n)
    table["surrogate_asr"] = _share(grouped["surrogate_fooled"], both)
    table["relative_asr"] = _share(grouped["fooled"], grouped["surrogate_fooled"])
    table["delta_asr"] = 100 * (table["asr"] - table["surrogate_asr"])
    table["same_mistake"] = _share(grouped["same"], grouped["both_fooled"])
    table["targeted_success"] = _share(grouped["hit"], grouped["aimed"])
    table["mean_l2"] = _share(outcomes["l2"].groupby(codes).sum().to_numpy(), n)
    table["zero_gradient_images"] = grouped["zero_gradient_images"]
    return Counted(table, codes, happened)


def _settings_of(outcomes: pd.DataFrame) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Per outcome its setting, and the settings: the columns of `SETTING`, in order of appearance."""
    combined = np.zeros(len(outcomes), dtype=np.int64)
    for name in SETTING:
        column = outcomes[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            codes, different = column.cat.codes.to_numpy(), len(column.cat.categories)
        else:
            codes, values = pd.factorize(column)
            different = len(values)
        combined = combined * different + codes  # names are few: their product is far below 2⁶³
    setting_of, _ = pd.factorize(combined)
    first = np.flatnonzero(np.diff(np.maximum.accumulate(setting_of), prepend=-1))
    return setting_of, _with_plain_names(outcomes[SETTING].iloc[first].reset_index(drop=True))


def final_iterates(outcomes: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows are of an attack's last iterate, not of one kept on the way."""
    last: NDArray[np.bool_] = (
        outcomes["steps"] == outcomes.groupby("attack", observed=True)["steps"].transform("max")
    ).to_numpy()
    return last


def accuracies(clean: pd.DataFrame) -> pd.DataFrame:
    """One row per task, model and seed: ``images`` and ``accuracy``, in [0, 1].

    Args:
        clean: one row per ``task, model, seed, image`` with ``label`` and ``prediction``.
    """
    keys = ["task", "model", "seed"]
    right = clean[keys].assign(right=clean["prediction"] == clean["label"])
    grouped = right.groupby(keys, sort=False, observed=True)["right"].agg(["size", "mean"])
    return _with_plain_names(grouped.rename(columns={"size": "images", "mean": "accuracy"}).reset_index())


def _with_plain_names(table: pd.DataFrame) -> pd.DataFrame:
    """Categories save room in outcomes; in a table of rates they only surprise."""
    names = [name for name in table.columns if isinstance(table[name].dtype, pd.CategoricalDtype)]
    return table.astype(dict.fromkeys(names, str))


def _share(counts: NDArray[Any], of: NDArray[np.intp]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(of == 0, np.nan, counts / of)
