"""What became of each image, and the rates that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mergerisk.statistics import rate_table, wilson_interval
from mergerisk.transfer.rates import SETTING

if TYPE_CHECKING:
    from collections.abc import Sequence

CLEAN, FLOATING, SAVED = "clean_prediction", "adversarial_prediction_before_saving", "adversarial_prediction"
"""Columns with the attacked model's predictions."""

AIM = "target_label"
"""The column with the label a targeted attack aims at; only such an attack has it."""

_RATES = [
    "images",
    "images_both_correct",
    "clean_accuracy",
    "asr",
    "asr_low",
    "asr_high",
    "asr_all",
    "asr_all_low",
    "asr_all_high",
    "surrogate_asr",
    "relative_asr",
    "targeted_success",
]


def column(prediction: str, target: str) -> str:
    """A target's column of predictions."""
    return f"{prediction}: {target}"


def model_rates(outcomes: pd.DataFrame, model: str, targets: Sequence[str]) -> list[dict[str, Any]]:
    """One mapping per model, the attacked one first: its clean accuracy, and the rates of
    :func:`mergerisk.statistics.rate_table`; None for a rate of nothing.

    Args:
        outcomes: one row per image, with the columns of ``attack.csv``.
        model: the attacked model.
        targets: the models that transfer is measured on.
    """
    predictions = {model: (CLEAN, SAVED)} | {name: (column(CLEAN, name), column(SAVED, name)) for name in targets}
    shared = pd.DataFrame(
        {
            **dict.fromkeys(SETTING, 0),
            "surrogate": model,
            "image": outcomes["file"],
            "label": outcomes["label"],
            "aimed_at": outcomes.get(AIM, -1),
            "surrogate_clean": outcomes[CLEAN],
            "surrogate_adversarial": outcomes[SAVED],
            "l2": outcomes["l2"],
            "linf": outcomes["linf"],
            "zero_gradients": outcomes["zero_gradients"],
        }
    )
    per_model = [
        shared.assign(target=name, target_clean=outcomes[clean], target_adversarial=outcomes[saved])
        for name, (clean, saved) in predictions.items()
    ]
    table = rate_table(pd.concat(per_model, ignore_index=True)).set_index("target")
    found = table.loc[list(predictions)].rename(columns={"clean_accuracy_target": "clean_accuracy"})[_RATES]
    hits = np.rint(found["targeted_success"].fillna(0) * found["images_both_correct"])
    ends = wilson_interval(hits, np.where(found["targeted_success"].isna(), 0, found["images_both_correct"]))
    found["targeted_success_low"], found["targeted_success_high"] = ends
    return [
        {"model": name} | {str(rate): None if np.isnan(value) else value for rate, value in row.items()}
        for name, row in found.to_dict("index").items()
    ]


def saving(outcomes: pd.DataFrame) -> dict[str, int]:
    """What rounding to 8 bits changed of the attacked model's predictions, counted in images."""
    return {
        "predictions_changed": int((outcomes[FLOATING] != outcomes[SAVED]).sum()),
        "wrong_before": int((outcomes[FLOATING] != outcomes["label"]).sum()),
        "wrong_after": int((outcomes[SAVED] != outcomes["label"]).sum()),
    }
