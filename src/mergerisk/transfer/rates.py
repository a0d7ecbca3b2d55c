"""Outcomes per image → rates per setting.

An outcome row holds ``task, attack, surrogate, target, epsilon, seed, steps, image, label`` and what was
predicted: ``surrogate_clean, target_clean, surrogate_adversarial, target_adversarial``; besides ``aimed_at``, the
label a targeted attack wants (−1 for an untargeted one), ``l2`` and ``linf`` of the perturbation, in pixel units,
and ``zero_gradients``, the steps of the whole attack at which crafting met an all-zero gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

SETTING = ["task", "attack", "surrogate", "target", "epsilon", "seed", "steps"]
"""The columns that name a setting."""

CURVE = ["task", "attack", "surrogate", "target", "seed", "steps"]
"""The columns that name a curve: a setting without its budget."""


def rates(outcomes: pd.DataFrame) -> pd.DataFrame:
    """One row per setting.

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
    label = outcomes["label"]
    surrogate_right, target_right = outcomes["surrogate_clean"] == label, outcomes["target_clean"] == label
    surrogate_fooled = outcomes["surrogate_adversarial"] != label
    target_fooled = outcomes["target_adversarial"] != label
    counts = surrogate_right & target_right
    both_fooled = counts & surrogate_fooled & target_fooled
    same = both_fooled & (outcomes["surrogate_adversarial"] == outcomes["target_adversarial"])
    columns: dict[str, Any] = {
        "images": np.ones(len(outcomes), dtype=np.int64),
        "images_both_correct": counts,
        "surrogate_right": surrogate_right,
        "target_right": target_right,
        "fooled": counts & target_fooled,
        "wrong": target_fooled,
        "surrogate_fooled": counts & surrogate_fooled,
        "both_fooled": both_fooled,
        "same": same,
        "aimed": counts & (outcomes["aimed_at"] >= 0),
        "hit": counts & (outcomes["target_adversarial"] == outcomes["aimed_at"]),
        "l2": outcomes["l2"],
        "zero_gradient_images": outcomes["zero_gradients"] > 0,
    }
    grouped = outcomes[SETTING].assign(**columns).groupby(SETTING, sort=False, observed=True).sum()
    n, both = grouped["images"].to_numpy(), grouped["images_both_correct"].to_numpy()
    table = pd.DataFrame(index=grouped.index)
    table["images"] = n
    table["images_both_correct"] = both
    table["images_both_fooled"] = grouped["both_fooled"]
    table["clean_accuracy_surrogate"] = _share(grouped["surrogate_right"], n)
    table["clean_accuracy_target"] = _share(grouped["target_right"], n)
    table["asr"] = _share(grouped["fooled"], both)
    table["asr_all"] = _share(grouped["wrong"], n)
    table["surrogate_asr"] = _share(grouped["surrogate_fooled"], both)
    table["relative_asr"] = _share(grouped["fooled"], grouped["surrogate_fooled"].to_numpy())
    table["delta_asr"] = 100 * (table["asr"] - table["surrogate_asr"])
    table["same_mistake"] = _share(grouped["same"], grouped["both_fooled"].to_numpy())
    table["targeted_success"] = _share(grouped["hit"], grouped["aimed"].to_numpy())
    table["mean_l2"] = _share(grouped["l2"], n)
    table["zero_gradient_images"] = grouped["zero_gradient_images"]
    return _with_plain_names(table.reset_index())


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


def _share(counts: pd.Series, of: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(of == 0, np.nan, counts.to_numpy(dtype=np.float64) / of)
