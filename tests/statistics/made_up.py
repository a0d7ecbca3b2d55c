"""Outcomes per image of a study whose true rates are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

METHODS = ("weight_averaging", "ties", "weight_averaging+surgery", "ties+surgery")


def outcomes(
    chances: Mapping[str, float],
    *,
    seed: int = 0,
    tasks: Sequence[str] = ("digits", "letters", "signs", "textures", "faces", "maps"),
    attacks: Sequence[str] = ("fgsm", "mi_fgsm"),
    surrogates: Sequence[str] = ("expert", "pretrained"),
    epsilons: Sequence[float] = (2 / 255, 4 / 255, 8 / 255),
    seeds: Sequence[int] = (0,),
    images: int = 40,
    accuracy: Mapping[str, float] | None = None,
    white_box: float = 0.8,
    shared: float = 1.0,
) -> pd.DataFrame:
    """One row per setting and image.

    An image has a toughness per target, the same in every setting (a share ``shared`` of images) or drawn anew: so
    settings of one task depend on each other as they do in a study. Budgets multiply the chance by 1/2, 1, 3/2 …

    Args:
        chances: target → chance that it is fooled at the second budget; the surrogate's is ``white_box``.
        seed: of everything.
        tasks, attacks, surrogates, epsilons, seeds: axes.
        images: per task.
        accuracy: target → clean accuracy; 1 by default.
        white_box: chance that the surrogate is fooled.
        shared: share of toughness that settings share.
    """
    random = np.random.default_rng(seed)
    accuracy = accuracy or {}
    targets = ("expert", "pretrained", *chances)
    shape = (len(tasks), len(attacks), len(surrogates), len(targets), len(epsilons), len(seeds), images)
    t, a, s, m, e, z, i = (index.ravel() for index in np.indices(shape))
    factor = (np.arange(len(epsilons)) + 1) / 2 if len(epsilons) > 1 else np.ones(1)
    own = random.uniform(size=(len(tasks), len(targets), images))[t, m, i]
    fresh = random.uniform(size=shape).ravel()
    keep = random.uniform(size=shape).ravel() < shared
    toughness = np.where(keep, own, fresh)
    chance = np.array([white_box, white_box, *chances.values()])[m] * factor[e]
    surrogate_place = np.array([targets.index(name) for name in surrogates])
    white = np.where(keep, random.uniform(size=(len(tasks), len(surrogates), images))[t, s, i], fresh)
    surrogate_fooled = white < np.minimum(white_box * factor[e], 1)
    fooled = np.where(surrogate_place[s] == m, surrogate_fooled, toughness < chance)
    right = (
        random.uniform(size=(len(tasks), len(targets), images))
        < np.array([accuracy.get(name, 1.0) for name in targets])[None, :, None]
    )
    target_right, surrogate_right = right[t, m, i], right[t, surrogate_place[s], i]

    def names(values: Sequence[str], codes: np.ndarray) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, categories=list(values))

    return pd.DataFrame(
        {
            "task": names(tasks, t),
            "attack": names(attacks, a),
            "surrogate": names(surrogates, s),
            "target": names(targets, m),
            "epsilon": np.asarray(epsilons)[e],
            "seed": np.asarray(seeds)[z],
            "steps": 10,
            "image": i,
            "label": 0,
            "surrogate_clean": np.where(surrogate_right, 0, 1),
            "target_clean": np.where(target_right, 0, 1),
            "surrogate_adversarial": np.where(surrogate_fooled, 2, np.where(surrogate_right, 0, 1)),
            "target_adversarial": np.where(fooled, 2, np.where(target_right, 0, 1)),
            "aimed_at": -1,
            "l2": 1.0,
            "linf": 0.01,
            "zero_gradients": 0,
        }
    )
