"""A table of rates, whoever wrote it: columns recognised by their names, shares of 1 from here on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mergerisk.errors import UserError, did_you_mean
from mergerisk.validation import parse_fraction

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = {
    "task": ("task", "dataset", "data_set", "data"),
    "attack": ("attack", "attack_method"),
    "surrogate": ("surrogate", "surrogate_model", "source", "source_model"),
    "target": ("target", "target_model", "victim", "model", "merging", "merging_method"),
    "epsilon": ("epsilon", "eps", "ε", "budget"),
    "seed": ("seed",),
    "steps": ("steps", "iterations"),
    "images": ("images", "n", "n_images", "num_images", "samples"),
    "images_both_correct": ("images_both_correct", "n_both_correct"),
    "asr": ("asr", "transfer_asr", "attack_success_rate"),
    "asr_all": ("asr_all", "error_rate", "robust_error"),
    "surrogate_asr": ("surrogate_asr", "white_box_asr"),
    "surrogate_asr_all": ("surrogate_asr_all",),
    "clean_accuracy": (
        "clean_accuracy_target",
        "clean_accuracy",
        "target_clean_accuracy",
        "accuracy",
        "clean_acc",
    ),
}
"""What is read → the names it goes by; the first that a table has is taken."""

TEXTS = ("task", "attack", "surrogate", "target")
RATES = ("asr", "asr_all", "surrogate_asr", "surrogate_asr_all", "clean_accuracy")
_PERCENT = re.compile(r"[\s_,(\[]*(in[\s_]+)?(percent|percentage|pct|%)[\s)\]]*$")
_IN_255 = re.compile(r"[\s_,(\[]*(in[\s_]+)?(x_?|[*×·]\s*|1?\s*/\s*)?255(ths?)?[\s)\]]*$")

_MOST = 1e15
"""That anything is counted to: far above, a float does not hold every whole number."""


def recognise(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The columns of :data:`NAMES` that a long table of rates has, under those names.

    A rate whose column's name ends in ``percent``, ``pct`` or ``%`` is divided by 100, others must lie in [0, 1];
    a budget whose name ends in 255 is divided by that, and may be written as a fraction (``8/255``).

    Args:
        frame: one row per setting, in any order.
        where: the table's name, for messages.

    Raises:
        UserError: a column is missing, its numbers are none, or out of range; the table is empty.
    """
    if frame.empty:
        raise UserError(f"{where}: holds no rows")
    found: dict[str, pd.Series] = {}
    taken: dict[str, str] = {}
    plain = {column: _plain(str(column)) for column in frame.columns}
    for name, aliases in NAMES.items():
        for alias in aliases:
            columns = [column for column, (text, _, _) in plain.items() if text == alias]
            if len(columns) > 1:
                raise UserError(f"{where}: columns {columns[0]!r} and {columns[1]!r} both say {name}; drop one")
            if columns:
                found[name], taken[name] = frame[columns[0]], str(columns[0])
                break
    _check_present(found, frame, where)
    table = pd.DataFrame(index=pd.RangeIndex(len(frame)))
    for name, column in found.items():
        _, percent, in_255 = _plain(taken[name])
        place = f"{where}: column {taken[name]!r}"
        if name in TEXTS:
            table[name] = _texts(column, place)
            continue
        numbers = _numbers(column, place, fractions=name == "epsilon")
        if name in RATES:
            table[name] = _shares(numbers, percent, place, taken[name])
        elif name == "epsilon":
            table[name] = numbers / (255 if in_255 else 1)
        else:
            table[name] = _counts(numbers, place)
    return table


def _plain(column: str) -> tuple[str, bool, bool]:
    """A column's name without its unit, and which unit it names: percent, 1/255."""
    text = column.strip().lower()
    percent, in_255 = _PERCENT.search(text), _IN_255.search(text)
    unit = percent or in_255
    bare = text[: unit.start()] if unit else text
    return re.sub(r"[\s\-]+", "_", bare.strip()), percent is not None, in_255 is not None


def _check_present(found: dict[str, pd.Series], frame: pd.DataFrame, where: str) -> None:
    columns = [str(column) for column in frame.columns]
    for name in TEXTS:
        if name not in found:
            raise UserError(
                f"{where}: no column for the {name} ({' or '.join(NAMES[name][:3])}){_near(name, columns)}"
            )
    if "asr" not in found and "asr_all" not in found:
        raise UserError(f"{where}: no column of rates (asr, asr_all or asr_all_percent){_near('asr', columns)}")


def _near(name: str, columns: list[str]) -> str:
    return did_you_mean(name, columns).replace("known:", "it has:").replace("did you mean", "is it")


def _texts(column: pd.Series, place: str) -> NDArray[np.object_]:
    if column.isna().any():
        raise UserError(f"{place}: row {_row(column.isna())} is empty")
    return column.astype(str).str.strip().to_numpy(dtype=object)


def _numbers(column: pd.Series, place: str, *, fractions: bool) -> NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    wrong = np.isnan(numbers) & column.notna().to_numpy()
    if wrong.any() and fractions:
        texts = column.astype(str)
        try:
            parsed = {text: parse_fraction(text) for text in texts[wrong].unique()}
        except ValueError as error:
            raise UserError(f"{place}: {error}") from error
        numbers[wrong] = texts[wrong].map(parsed).to_numpy(dtype=np.float64)
    elif wrong.any():
        row = _row(wrong)
        text = str(column.iloc[row - 1]).strip()
        hint = "; write the numbers alone, and name the column …_percent" if text.endswith("%") else ""
        raise UserError(f"{place}: row {row} is no number: {column.iloc[row - 1]!r}{hint}")
    if np.isinf(numbers).any():
        raise UserError(f"{place}: row {_row(np.isinf(numbers))} is infinite")
    return numbers


def _shares(numbers: NDArray[np.float64], percent: bool, place: str, column: str) -> NDArray[np.float64]:
    top = 100 if percent else 1
    outside = (numbers < 0) | (numbers > top)
    if outside.any():
        row = _row(outside)
        hint = "" if percent or numbers[row - 1] < 0 else f"; if it is in percent, name it so: {column}_percent"
        raise UserError(f"{place}: row {row} must lie in [0, {top}], got {numbers[row - 1]:g}{hint}")
    return numbers / top


def _counts(numbers: NDArray[np.float64], place: str) -> NDArray[np.int64]:
    wrong = np.isnan(numbers) | (numbers < 0) | (numbers > _MOST) | (numbers != np.rint(numbers))
    if wrong.any():
        row = _row(wrong)
        raise UserError(
            f"{place}: row {row} must be a whole number, from 0 to {_MOST:.0e}, got {numbers[row - 1]:g}"
        )
    return numbers.astype(np.int64)


def _row(wrong: pd.Series | NDArray[np.bool_]) -> int:
    """The first one, counted from 1 without the header."""
    return int(np.argmax(np.asarray(wrong))) + 1
