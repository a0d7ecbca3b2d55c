"""A made-up study for the report's tests: the shape of a real one, figures drawn from a seeded generator."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mergerisk.report import (
    FLAG_COLUMNS,
    RESULT_COLUMNS,
    SCHEMA_VERSION,
    Example,
    RunRecord,
    StageTime,
    Summary,
)
from mergerisk.statistics import PairOf, Standing, Standings

if TYPE_CHECKING:
    from collections.abc import Mapping

TASKS = ("digits", "street_numbers", "traffic_signs", "textures", "land_cover", "letters", "pictograms")
ATTACKS = ("fgsm", "i_fgsm", "mi_fgsm", "ni_fgsm", "ti_fgsm", "di_fgsm")
SURROGATES = ("expert", "pretrained")
METHODS = (
    "weight_averaging", "task_arithmetic", "ties", "adamerging",
    "weight_averaging+surgery", "task_arithmetic+surgery", "ties+surgery", "adamerging+surgery",
)  # fmt: skip
EPSILONS = tuple(value / 255 for value in (0.5, 1, 2, 4, 8))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval, by hand so that the tests need nothing of the package."""
    if not n:
        return math.nan, math.nan
    z = 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def run_record(**changes: object) -> RunRecord:
    fields: dict[str, object] = {
        "study": "starter",
        "description": "Eight merging methods, seven small tasks and six attacks, made offline in minutes.",
        "backbone": "starter-vit",
        "tasks": TASKS,
        "methods": METHODS,
        "attacks": ATTACKS,
        "surrogates": SURROGATES,
        "epsilons": EPSILONS,
        "norm": "linf",
        "seeds": (0,),
        "images_per_task": 400,
        "settings": len(TASKS) * len(METHODS) * len(ATTACKS),
        "calibration": "256 unlabelled training images per task",
        "versions": {"mergerisk": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6"},
        "device": "cpu",
        "workers": 2,
        "git_revision": None,
        "started": "2026-11-22T09:43:00Z",
        "seconds": 812.4,
        "stages": (
            StageTime("fine_tune", 7, 0, 310.2),
            StageTime("merge", 8, 2, 44.9),
            StageTime("craft", 420, 60, 950.3),
            StageTime("evaluate", 4200, 0, 160.0),
        ),
        "counts": {"outcomes": 1_680_000, "crafted_images": 168_000, "gradients": 1_260_000},
        "caveats": ("The suite is for learning the tool, not for claims about deployed models.",),
        "study_yaml": "backbone: starter-vit\ntasks: starter\nattacks: [fgsm, i_fgsm]\n",
    }
    return RunRecord(**(fields | changes))  # type: ignore[arg-type]


def result_row(**changes: object) -> dict[str, object]:
    """One row of results with harmless values."""
    row: dict[str, object] = {
        "task": "digits", "attack": "fgsm", "surrogate": "expert", "target": "ties", "epsilon": 4 / 255,
        "seed": 0, "images": 100, "images_both_correct": 80, "images_both_fooled": 28,
        "clean_accuracy_surrogate": 0.95, "clean_accuracy_target": 0.85,
        "asr": 0.4, "asr_low": 0.3, "asr_high": 0.51, "asr_all": 0.5, "asr_all_low": 0.4, "asr_all_high": 0.6,
        "surrogate_asr": 0.8, "relative_asr": 0.5, "relative_asr_low": 0.37, "relative_asr_high": 0.65,
        "delta_asr": -40.0, "same_mistake": 0.3, "mean_l2": 0.7,
    }  # fmt: skip
    return row | changes


def standing(values: Mapping[str, float], *, gap: float = 0.1, epsilon: float = 4 / 255) -> Standings:
    """How methods stand, two of them apart from a difference of ``gap`` on."""
    order = sorted(values, key=lambda name: (values[name], name))
    pairs = tuple(
        PairOf(first, second, d, d - gap, d + gap, 0.001 if d >= gap else 1.0, d >= gap)
        for first, second in combinations(order, 2)
        if (d := values[second] - values[first]) >= 0
    )
    methods = tuple(
        Standing(name, values[name], max(0.0, values[name] - 0.05), min(1.0, values[name] + 0.05))
        for name in order
    )
    return Standings(epsilon, ("expert", "pretrained"), methods, pairs, 2, 1, 160)


def standings_of(results: pd.DataFrame) -> tuple[Standings, ...]:
    """:func:`standing` of every budget, from the mean ASRs of methods attacked from outside."""
    black = results[
        ~results["target"].isin(["expert", "pretrained"]) & (results["surrogate"] != results["target"])
    ]
    means = black.dropna(subset=["asr"]).groupby(["epsilon", "target"], sort=True)["asr"].mean()
    return tuple(standing(means[epsilon].to_dict(), epsilon=epsilon) for epsilon in means.index.unique("epsilon"))


def summary(
    seed: int = 0,
    tasks: tuple[str, ...] = TASKS,
    attacks: tuple[str, ...] = ATTACKS,
    surrogates: tuple[str, ...] = SURROGATES,
    methods: tuple[str, ...] = METHODS,
    epsilons: tuple[float, ...] = EPSILONS,
    seeds: tuple[int, ...] = (0,),
    examples: int = 6,
) -> Summary:
    """A full summary. Rates rise with ε, fall with a method's own robustness, and saturate at the top."""
    rng = np.random.default_rng(seed)
    targets = (*methods, "pretrained", "expert")
    accuracy_of = {
        (task, target): float(np.clip(base + rng.normal(0, 0.05), 0.05, 0.995))
        for task in tasks
        for target, base in zip(targets, [*np.linspace(0.72, 0.9, len(methods)), 0.45, 0.96], strict=True)
    }
    # the ε, in 1/255, that fools half the images of a pair
    toughness = dict(zip(targets, [*rng.permutation(np.linspace(2.2, 4.0, len(methods))), 2.0, 1.0], strict=True))
    difficulty = {task: float(rng.uniform(0.5, 1.7)) for task in tasks}
    strength = dict(zip(attacks, np.linspace(0.75, 1.35, len(attacks)), strict=True))
    images = 400
    results, curves = [], []
    for seed_ in seeds:
        for task in tasks:
            for attack in attacks:
                for surrogate in surrogates:
                    own = _curve(epsilons, 0.9 * difficulty[task] / strength[attack], 0.0, rng)
                    for target in targets:
                        half = toughness[target] * difficulty[task] / strength[attack]
                        half *= 1.35 if surrogate == "pretrained" else 1.0
                        curve = own if target == surrogate else _curve(epsilons, half, 0.02, rng)
                        both = int(images * accuracy_of[task, target] * accuracy_of[task, surrogate])
                        for epsilon, asr, surrogate_asr in zip(epsilons, curve, own, strict=True):
                            results.append(
                                _row((task, attack, surrogate, target, epsilon, seed_), both, asr,
                                     surrogate_asr, accuracy_of)
                            )  # fmt: skip
                        curves.append(_epsilon50(task, attack, surrogate, target, seed_, epsilons, curve))
    accuracy = []
    for seed_ in seeds:
        for (task, target), share in accuracy_of.items():
            low, high = wilson(share, 1000)
            accuracy.append(
                {"task": task, "model": target, "seed": seed_, "images": 1000, "accuracy": share, "low": low,
                 "high": high}
            )  # fmt: skip
    reason = "falls by more than chance allows (McNemar's test): the attack may overshoot"
    flags = [
        (
            tasks[0],
            attacks[-1],
            surrogates[0],
            target,
            seeds[0],
            epsilons[-2],
            epsilons[-1],
            0.93,
            0.9,
            0.004,
            reason,
        )
        for target in methods[:2]
        if len(epsilons) > 1
    ]
    return Summary(
        schema_version=SCHEMA_VERSION,
        run=run_record(
            tasks=tasks, attacks=attacks, surrogates=surrogates, methods=methods, epsilons=epsilons,
            seeds=seeds, settings=len(tasks) * len(attacks) * len(methods),
        ),
        results=pd.DataFrame(results, columns=list(RESULT_COLUMNS)),
        by_step=pd.DataFrame(columns=[*RESULT_COLUMNS, "steps"]),
        accuracy=pd.DataFrame(accuracy),
        epsilon50=pd.DataFrame(curves),
        flags=pd.DataFrame(flags, columns=list(FLAG_COLUMNS)),
        examples=tuple(
            example(rng, tasks[i % len(tasks)], methods[i % len(methods)], i) for i in range(examples)
        ),
    )  # fmt: skip


def example(rng: np.random.Generator, task: str, target: str, image: int) -> Example:
    """A smooth picture and a signed-noise perturbation."""
    rows, columns = np.mgrid[0:32, 0:32] / 31
    clean = np.stack([rows, columns, 0.5 + 0.4 * np.sin(6 * rows * columns + image)], axis=2)
    epsilon = 4 / 255
    change = (epsilon * rng.choice([-1.0, 1.0], size=clean.shape)).astype(np.float32)
    return Example(
        task=task,
        attack="mi_fgsm",
        surrogate="expert",
        target=target,
        epsilon=epsilon,
        image=image,
        clean=np.rint(255 * clean).astype(np.uint8),
        adversarial=np.rint(255 * np.clip(clean + change, 0, 1)).astype(np.uint8),
        perturbation=change,
        label="seven",
        surrogate_says="one",
        target_says="one" if image % 3 else "seven",
    )


def _curve(epsilons: tuple[float, ...], half: float, noise: float, rng: np.random.Generator) -> list[float]:
    shares = [1 / (1 + (half / (255 * epsilon)) ** 2.6) for epsilon in epsilons]
    noisy = [float(np.clip(share + rng.normal(0, noise), 0, 1)) for share in shares]
    # a lone near-miss at the ceiling stays there, as with real attacks
    return [1.0 if share > 0.985 else share for share in noisy]


def _row(
    key: tuple[str, str, str, str, float, int], both: int, asr: float, surrogate_asr: float,
    accuracy_of: dict[tuple[str, str], float],
) -> tuple[object, ...]:  # fmt: skip
    task, _, surrogate, target, epsilon, _ = key
    images = 400
    low, high = wilson(asr, both)
    asr_all = 1 - accuracy_of[task, target] * (1 - asr)
    all_low, all_high = wilson(asr_all, images)
    relative = asr / surrogate_asr if surrogate_asr > 0 else math.nan
    both_fooled = round(both * min(asr, surrogate_asr) * 0.9)
    return (
        *key, images, both, both_fooled, accuracy_of[task, surrogate], accuracy_of[task, target], asr, low, high,
        asr_all, all_low, all_high, surrogate_asr, relative, 0.9 * relative, 1.1 * relative,
        100 * (asr - surrogate_asr), 0.6 * asr, 255 * epsilon * 0.2,
    )  # fmt: skip


def _epsilon50(
    task: str,
    attack: str,
    surrogate: str,
    target: str,
    seed: int,
    epsilons: tuple[float, ...],
    curve: list[float],
) -> dict[str, object]:
    value, status, low, high = math.nan, "not_reached", epsilons[-1], math.inf
    if curve[0] >= 0.5:
        status, low, high = "below_smallest", 0.0, epsilons[0]
    else:
        for (e0, a0), (e1, a1) in zip(
            zip(epsilons, curve, strict=True), zip(epsilons[1:], curve[1:], strict=True), strict=False
        ):
            if a0 < 0.5 <= a1:
                value, status = e0 + (e1 - e0) * (0.5 - a0) / (a1 - a0), "measured"
                low, high = 0.9 * value, 1.1 * value
                break
    return {
        "task": task, "attack": attack, "surrogate": surrogate, "target": target, "seed": seed,
        "epsilon50": value, "status": status, "low": low, "high": high,
    }  # fmt: skip
