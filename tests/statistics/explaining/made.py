"""Outcomes whose causes are known, since they are drawn from them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def study(
    seed: int,
    *,
    cause: float = 0.0,
    tasks: int = 2,
    images: int = 60,
    targets: int = 6,
    attacks: int = 1,
    spread: float = 0.5,
) -> pd.DataFrame:
    """A table with these columns besides: ``cause``, which moves ``fooled`` (by so much in log odds); ``companion``,
    which goes with the cause and moves nothing; ``noise``; ``by_target`` and ``clean``, noise that is the same for all
    images of a target; ``by_image``, noise that is the same for all targets. Targets differ by ``spread`` besides."""
    random = np.random.default_rng(seed)
    strength = spread * random.normal(size=targets)
    weak, clean = random.normal(size=targets), random.normal(size=targets)
    parts = []
    for task in range(tasks):
        easy = random.normal(size=images)
        own = random.normal(size=images)
        values = random.normal(size=(images, targets)) + random.normal(size=targets)
        companion = 0.8 * values + 0.6 * random.normal(size=(images, targets))
        noise = random.normal(size=(images, targets))
        image, target = np.mgrid[:images, :targets]
        for attack in range(attacks):
            odds = easy[:, None] + strength + cause * values - 0.5
            fooled = random.random((images, targets)) < 1 / (1 + np.exp(-odds))
            columns = {
                "task": f"task {task}",
                "attack": f"attack {attack}",
                "epsilon": 0.1,
                "image": image.ravel(),
                "target": [f"merge {place}" for place in target.ravel()],
                "fooled": fooled.ravel(),
                "cause": values.ravel(),
                "companion": companion.ravel(),
                "noise": noise.ravel(),
                "by_target": np.broadcast_to(weak, (images, targets)).ravel(),
                "clean": np.broadcast_to(clean, (images, targets)).ravel(),
                "by_image": np.broadcast_to(own[:, None], (images, targets)).ravel(),
            }
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def changed(
    seed: int,
    *,
    effect: float = 0.0,
    moved: float = 1.0,
    direct: float = 0.0,
    tasks: int = 2,
    images: int = 150,
    idle: int = 0,
) -> pd.DataFrame:
    """Targets that differ in one thing, shown the same images at four budgets.

    ``merge`` is what it is; in ``cause moved`` the cause of every image is larger by ``moved``; in ``companion
    moved`` the companion is; in ``nothing moved`` only chance differs. The cause moves outcomes by ``effect`` in log
    odds, and the first change by ``direct`` besides. Where nothing is changed the companion goes with the cause. ``idle``
    more diagnostics, ``idle 0`` …, are noise.
    """
    random = np.random.default_rng(seed)
    parts = []
    for task in range(tasks):
        easy, cause = random.normal(size=images), random.normal(size=images)
        companion = 0.8 * cause + 0.6 * random.normal(size=images)
        for target in ("merge", "cause moved", "companion moved", "nothing moved"):
            own = cause + moved * (target == "cause moved") + 0.3 * random.normal(size=images)
            other = companion + moved * (target == "companion moved") + 0.3 * random.normal(size=images)
            weak = {f"idle {place}": random.normal(size=images) for place in range(idle)}
            # One draw per image and target: what a budget fools, a larger one does.
            threshold = random.logistic(size=images)
            pull = easy + effect * own + direct * (target == "cause moved")
            for place, epsilon in enumerate((0.01, 0.02, 0.04, 0.08)):
                columns = {"task": f"task {task}", "attack": "fgsm", "epsilon": epsilon, "target": target}
                columns |= {"image": np.arange(images), "fooled": threshold < pull + place - 2}
                parts.append(pd.DataFrame(columns | {"cause": own, "companion": other} | weak))
    return pd.concat(parts, ignore_index=True)
