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
