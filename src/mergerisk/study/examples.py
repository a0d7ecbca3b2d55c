"""A few attacked images, kept in the run's folder so that its report can be drawn without the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as save_safetensors

from mergerisk.study.differences import decoded
from mergerisk.tasks.arrays import TEST
from mergerisk.transfer import what_happened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.store import Artefact, Store
    from mergerisk.study.planning import Plan, Sweep


@dataclass(frozen=True, eq=False)
class Picture:
    """One image before and after an attack.

    Attributes:
        facts: ``task, attack, surrogate, target, epsilon, image`` and the class names ``label, surrogate_says,
            target_says``.
        clean: H × W × 3, float32 in [0, 1].
        adversarial: likewise, not rounded.
    """

    facts: dict[str, Any]
    clean: NDArray[np.float32]
    adversarial: NDArray[np.float32]


def pick_pictures(plan: Plan, store: Store, outcomes: pd.DataFrame) -> Iterator[Picture]:
    """One per task, each with another attack: an image that surrogate and target know and both mistake."""
    study, seed = plan.study, plan.study.seeds[0]
    surrogate, target = study.surrogates[0].label, study.target_labels[0]
    chosen = outcomes[
        (outcomes["seed"] == seed) & (outcomes["surrogate"] == surrogate) & (outcomes["target"] == target)
    ]
    sweeps = {
        (sweep.task, sweep.attack): sweep
        for sweep in plan.sweeps
        if sweep.seed == seed and sweep.surrogate == surrogate
    }
    keys = {run.task: run.task_key for run in plan.task_runs}
    for position, (task, key) in enumerate(keys.items()):
        attack = study.attacks[position % len(study.attacks)].label
        row = _telling_row(chosen[(chosen["task"] == task) & (chosen["attack"] == attack)])
        if row is not None:
            yield _picture(row, sweeps[task, attack], key, store)


def _telling_row(outcomes: pd.DataFrame) -> pd.Series | None:
    """The first image, at the budget that fools nearest to half, that both models know and both mistake."""
    happened = what_happened(outcomes)
    known = outcomes[happened.counts].assign(fooled=happened.target_wrong[happened.counts])
    if known.empty:
        return None
    epsilon = (known.groupby("epsilon")["fooled"].mean() - 0.5).abs().idxmin()
    both = outcomes[happened.fooled & happened.surrogate_fooled & (outcomes["epsilon"] == epsilon).to_numpy()]
    return None if both.empty else both.sort_values("image").iloc[0]


def _picture(row: pd.Series, sweep: Sweep, task_key: str, store: Store) -> Picture:
    task = store.get(task_key)
    crafted = store.get(sweep.crafted[sweep.epsilons.index(row["epsilon"])]).arrays
    place = int(np.flatnonzero(crafted["indices"] == row["image"])[0])
    names = task.info["class_names"]
    facts = {
        "task": sweep.task,
        "attack": sweep.attack,
        "surrogate": sweep.surrogate,
        "target": row["target"],
        "epsilon": float(row["epsilon"]),
        "image": int(row["image"]),
        "label": names[row["label"]],
        "surrogate_says": names[row["surrogate_adversarial"]],
        "target_says": names[row["target_adversarial"]],
    }
    clean = clean_pixels(task, int(row["image"]))
    changed = decoded(crafted, clean.transpose(2, 0, 1)[None], slice(place, place + 1))
    return Picture(facts, clean, changed[-1, 0].transpose(1, 2, 0))


def clean_pixels(task: Artefact, image: int) -> NDArray[np.float32]:
    """One image of a task's test split as it is stored: H × W × 3, in [0, 1]."""
    images = task.rows["images"] if "images" in task.rows else task.arrays["images"]
    tests = np.flatnonzero(task.arrays["split"] == TEST)
    return _as_pixels(images[int(tests[image])])


def _as_pixels(image: NDArray[Any]) -> NDArray[np.float32]:
    """H × W × 3 in [0, 1] from a task's stored image."""
    pixels = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image.astype(np.float32)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def pictures_to_bytes(pictures: list[Picture]) -> bytes:
    """As one safetensors file; the facts travel in its header."""
    arrays = {}
    for position, picture in enumerate(pictures):
        arrays[f"{position}/clean"] = np.ascontiguousarray(picture.clean)
        arrays[f"{position}/adversarial"] = np.ascontiguousarray(picture.adversarial)
    return save_safetensors(arrays, {"facts": json.dumps([picture.facts for picture in pictures])})


def read_pictures(path: Path) -> list[Picture]:
    """What :func:`pictures_to_bytes` wrote."""
    with safe_open(path, "numpy") as file:
        facts = json.loads(file.metadata()["facts"])
        return [
            Picture(fact, file.get_tensor(f"{position}/clean"), file.get_tensor(f"{position}/adversarial"))
            for position, fact in enumerate(facts)
        ]
