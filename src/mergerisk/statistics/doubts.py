"""What leaves nothing to judge: experts that learnt nothing, a base that equals them, too few images."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk.statistics.differences import paired_difference
from mergerisk.statistics.facts import Fact, fact
from mergerisk.statistics.intervals import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import pandas as pd

FEW_IMAGES = 30
"""Images that count in a cell; below, its interval is wider than most differences."""

FEW_STEPS = 8
"""Optimiser steps in an epoch, up to which experts hardly leave the base whatever the number of epochs says."""


def doubts(
    clean: pd.DataFrame,
    rates: pd.DataFrame,
    methods: Collection[str],
    steps_per_epoch: Mapping[str, int] | None = None,
) -> tuple[Fact, ...]:
    """Why a study's figures say little of merging, most fundamental first: ``chance``, ``same``, ``no_better``,
    ``few_images`` and ``few_steps``.

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


def _experts(clean: pd.DataFrame) -> Iterator[Fact]:
    chance: list[dict[str, Any]] = []
    same: list[dict[str, Any]] = []
    no_better: list[dict[str, Any]] = []
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
                {
                    "task": task, "share": share, "low": float(low), "high": float(high), "images": images,
                    "commonest": guess,
                }
            )  # fmt: skip
        both = own.merge(base[base["task"] == task], on=keys, suffixes=("", "_base"))
        if both.empty:
            continue
        if (both["prediction"] == both["prediction_base"]).all():
            same.append({"task": task, "images": len(both)})
            continue
        one, other = both["prediction"] == both["label"], both["prediction_base"] == both["label"]
        scale = both["image"].nunique() / len(both)
        counts = [
            np.array(float(part.sum()) * scale)
            for part in (one & other, other & ~one, one & ~other, ~one & ~other)
        ]
        gain, least, most = (float(end) for end in paired_difference(*counts))
        if least <= 0:
            images = both["image"].nunique()
            no_better.append({"task": task, "gain": gain, "low": least, "high": most, "images": images})
    if chance:
        yield fact("chance", experts=tuple(chance))
    if same:
        yield fact("same", experts=tuple(same))
    if no_better:
        yield fact("no_better", experts=tuple(no_better))


def _few_images(rates: pd.DataFrame, methods: Collection[str]) -> Iterator[Fact]:
    here = rates[rates["target"].isin(list(methods)) & (rates["surrogate"] != rates["target"])]
    if here.empty:
        return
    counts = here["images_both_correct"].to_numpy(dtype=np.float64)
    few = int((counts < FEW_IMAGES).sum())
    if few:
        least = here.iloc[int(np.argmin(counts))]
        where = {name: least[name] for name in ("task", "surrogate", "target")}
        yield fact("few_images", count=few, of=len(here), fewer_than=FEW_IMAGES, least=int(counts.min()), **where)


def _few_steps(steps_per_epoch: Mapping[str, int]) -> Iterator[Fact]:
    few = {task: steps for task, steps in steps_per_epoch.items() if steps <= FEW_STEPS}
    if few:
        yield fact("few_steps", steps=few, at_most=FEW_STEPS)
