"""What leaves nothing to judge: experts that learnt nothing, a base that equals them, too few images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mergerisk.statistics.differences import paired_difference
from mergerisk.statistics.intervals import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import pandas as pd

FEW_IMAGES = 30
"""Images that count in a cell; below, its interval is wider than most differences."""

FEW_STEPS = 8
"""Optimiser steps in an epoch, up to which experts hardly leave the base whatever the number of epochs says."""


@dataclass(frozen=True)
class Doubt:
    """One reason.

    Attributes:
        kind: ``chance``, ``no_better``, ``same``, ``few_images`` or ``few_steps``.
        sentence: what was found, with its figures.
    """

    kind: Literal["chance", "no_better", "same", "few_images", "few_steps"]
    sentence: str


def doubts(
    clean: pd.DataFrame,
    rates: pd.DataFrame,
    methods: Collection[str],
    steps_per_epoch: Mapping[str, int] | None = None,
) -> tuple[Doubt, ...]:
    """Why a study's figures say little of merging, most fundamental first.

    Args:
        clean: predictions on clean test images: ``task, model, seed, image, label, prediction``; of models
            ``expert`` and ``pretrained`` are looked at.
        rates: see :func:`mergerisk.transfer.rates`.
        methods: the targets that are judged.
        steps_per_epoch: task → optimiser steps in an epoch of its expert's fine-tuning, of those made in the run.
    """
    return (
        *_experts(clean),
        *_few_images(rates, methods),
        *_few_steps(steps_per_epoch or {}),
    )


def _experts(clean: pd.DataFrame) -> Iterator[Doubt]:
    chance, same, no_better = [], [], []
    keys = ["seed", "image"]
    experts = clean[clean["model"] == "expert"]
    base = clean[clean["model"] == "pretrained"]
    for task in experts["task"].unique():
        own = experts[experts["task"] == task]
        right = (own["prediction"] == own["label"]).to_numpy()
        # Seeds share images: a share of all rows, an interval as wide as one seed's.
        images, share = own["image"].nunique(), float(right.mean())
        low, high = wilson_interval(share * images, images)
        guess = max(Counter(own["label"].tolist()).values()) / len(own)
        if float(low) <= guess:
            chance.append(
                f"{task} ({share:.1%} [{100 * float(low):.1f}, {100 * float(high):.1f}] of {images} images; "
                f"always naming the commonest class {guess:.1%})"
            )
        both = own.merge(base[base["task"] == task], on=keys, suffixes=("", "_base"))
        if both.empty:
            continue
        if (both["prediction"] == both["prediction_base"]).all():
            same.append(f"{task} ({len(both)} images)")
            continue
        one, other = both["prediction"] == both["label"], both["prediction_base"] == both["label"]
        scale = both["image"].nunique() / len(both)
        counts = [
            np.array(float(part.sum()) * scale)
            for part in (one & other, other & ~one, one & ~other, ~one & ~other)
        ]
        gain, least, most = (float(end) for end in paired_difference(*counts))
        if least <= 0:
            no_better.append(
                f"{task} ({100 * gain:+.1f} points [{100 * least:+.1f}, {100 * most:+.1f}] on the same "
                f"{both['image'].nunique()} images)"
            )
    if chance:
        yield Doubt("chance", f"The experts are no better than guessing on {'; '.join(chance)}.")
    if same:
        yield Doubt(
            "same",
            f"The base names the same class as its experts on every test image of {'; '.join(same)}: they are one "
            "attacker, and there is nothing to merge.",
        )
    if no_better:
        yield Doubt(
            "no_better", f"The experts are not shown to be better than the base on {'; '.join(no_better)}."
        )


def _few_images(rates: pd.DataFrame, methods: Collection[str]) -> Iterator[Doubt]:
    here = rates[rates["target"].isin(list(methods)) & (rates["surrogate"] != rates["target"])]
    if here.empty:
        return
    counts = here["images_both_correct"].to_numpy(dtype=np.float64)
    few = int((counts < FEW_IMAGES).sum())
    if few:
        least = here.iloc[int(np.argmin(counts))]
        yield Doubt(
            "few_images",
            f"{few} of {len(here)} cells (one task, attack, surrogate, target and budget) count fewer than "
            f"{FEW_IMAGES} images; the least is {int(counts.min())}, {least['target']} on {least['task']} "
            f"attacked from {least['surrogate']}.",
        )


def _few_steps(steps_per_epoch: Mapping[str, int]) -> Iterator[Doubt]:
    few = {task: steps for task, steps in steps_per_epoch.items() if steps <= FEW_STEPS}
    if few:
        listed = ", ".join(f"{task} ({steps})" for task, steps in few.items())
        yield Doubt(
            "few_steps",
            f"An epoch of fine-tuning is {FEW_STEPS} optimiser steps or fewer on {listed}: a smaller "
            "batch, more epochs or more training images would let experts leave the base.",
        )
