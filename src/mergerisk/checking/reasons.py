"""Why two ways to one model differ, in plain words; the likeliest reason first."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from mergerisk.checking.comparing import FILE, MODEL, PIXELS
from mergerisk.statistics import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mergerisk.checking.comparing import Steps
    from mergerisk.checking.probing import Preparation

_CLOSE = 0.01
"""Two measured means, standard deviations or shares of a side that differ by less are one: 8 bits are 1/255."""

_PER_CLASS = 3
"""Images that a class needs before anything is said of the order of classes."""

_ORDERED = 0.75
"""Accuracy in another order from which on it is said: of few images, some order suits any predictions well."""


def reasons_of(
    steps: Steps,
    settings: Mapping[str, tuple[str, str]],
    own: Preparation | None,
    ours: Preparation | None,
    tolerance: float,
) -> list[str]:
    """What makes a reading differ from the library's way.

    Args:
        steps: how much arises at which step.
        settings: by name, the library's value and the reading's.
        own: what the library does with pictures; None if it cannot be told.
        ours: what the reading does.
        tolerance: difference that counts.
    """
    unknown = isnan(steps.sizes[PIXELS])
    largest = max((size for size in steps.sizes.values() if not isnan(size)), default=0.0)
    counted = [
        step
        for step, size in sorted(steps.sizes.items(), key=lambda item: -item[1] if not isnan(item[1]) else 0.0)
        if not isnan(size) and (size > tolerance or size == largest)
    ]
    if unknown:
        counted = [PIXELS, *(step for step in counted if steps.sizes[step] > tolerance)]
    said: list[str] = []
    for step in counted:
        if step == FILE:
            said.append(_file(settings))
        elif step == PIXELS:
            said += _pixels(steps, settings, own, ours, tolerance)
        else:
            said.append(_model(steps, settings, tolerance))
    return said


def _file(settings: Mapping[str, tuple[str, str]]) -> str:
    theirs, here = settings["picture it gets"]
    if theirs != here:
        return (
            f"the task brings images to {here} pixels, where the library gets {theirs}; give the task the size "
            f"that the model was made for, size: {settings['pixels it sees'][0].split(' × ')[0]}"
        )
    return (
        "the files are read differently: transparency is put on black and 16 bits are kept here, while the usual "
        "script drops both; save the images as RGB in 8 bits to have one reading"
    )


def _pixels(
    steps: Steps,
    settings: Mapping[str, tuple[str, str]],
    own: Preparation | None,
    ours: Preparation | None,
    tolerance: float,
) -> list[str]:
    if own is None or ours is None:
        return ["resizing or normalising differs; compare the settings above"]
    said = []
    twice = [m + s * m for m, s in zip(own.mean, own.std, strict=True)], [s * s for s in own.std]
    if not (_alike(own.mean, ours.mean) and _alike(own.std, ours.std)):
        normalised = not (_alike(own.mean, (0.0,) * 3) and _alike(own.std, (1.0,) * 3))
        if normalised and _alike(ours.mean, twice[0]) and _alike(ours.std, twice[1]):
            said.append("pixels are normalised twice")
        else:
            said.append(
                f"normalisation: mean {_numbers(ours.mean)} and standard deviation {_numbers(ours.std)}, where "
                f"the library takes {_numbers(own.mean)} and {_numbers(own.std)}"
            )
        if steps.renormalised <= tolerance:
            return said
    if own.size != ours.size:
        said.append(
            f"image size: the model sees {ours.size[0]} × {ours.size[1]} pixels, with its library "
            f"{own.size[0]} × {own.size[1]}; image_size says so in a study"
        )
    if not _alike(own.part, ours.part, _CLOSE + 0.5 / min(*own.size, *ours.size)):
        said.append(
            f"crop: the model sees {settings['part of the picture'][1]} of a picture, with its library "
            f"{settings['part of the picture'][0]}"
        )
    theirs, here = settings["resampling"]
    if not said or theirs != here:
        said.append(f"resampling: {here}, where the library resizes by {theirs}")
    return said


def _model(steps: Steps, settings: Mapping[str, tuple[str, str]], tolerance: float) -> str:
    theirs, here = settings["dtype"]
    if steps.in_float32 <= min(tolerance, steps.sizes[MODEL] / 2):
        return f"half precision: the library computes in {theirs}, mergerisk in {here}; the weights are the same"
    if settings["activation"][0] != settings["activation"][1]:
        return f"activation: {settings['activation'][1]}, where the library takes {settings['activation'][0]}"
    return "the model itself answers the same pixels differently: its weights or configuration are not the same"


def order_of_classes(
    who: str,
    names: Sequence[str],
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
) -> list[str]:
    """What accuracy says of the order of classes, or of labels that are not the model's.

    Args:
        who: whose predictions these are, in words.
        names: of the classes, in the order of logits.
        labels: of the images, N.
        predictions: for them, N.
    """
    classes, count = np.unique(labels), len(labels)
    right = int((labels == predictions).sum())
    if len(classes) < 2 or count < _PER_CLASS * len(classes):
        return []
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(table, (labels, predictions), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    best = int(table[rows, columns].sum())
    if best >= _ORDERED * count and right <= 0.5 * best:
        moved = sorted(
            ((row, column) for row, column in zip(rows, columns, strict=True) if row != column),
            key=lambda pair: -table[pair],
        )
        label, called = moved[0]
        said = (
            f"{who}: order of classes: {right / count:.0%} are right, and {best / count:.0%} would be if the "
            f"classes had other numbers (what is labelled {names[label]!r} is mostly called {names[called]!r}); "
            "compare the model's class names with the labels"
        )
        return [said]
    low, _ = wilson_interval(right, count)
    if float(low) <= 1 / len(names):
        said = (
            f"{who}: accuracy is no better than chance, as far as {count} images tell ({right} right, "
            f"{len(names)} classes), and would be in no other order of the classes; the model was not trained for "
            "these labels, or its weights are not the trained ones"
        )
        return [said]
    return []


def _alike(one: Sequence[float], other: Sequence[float], close: float = _CLOSE) -> bool:
    return all(abs(a - b) <= close for a, b in zip(one, other, strict=True))


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
