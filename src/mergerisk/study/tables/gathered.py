"""What tables are collected from once every stage has run."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from mergerisk.study.tables.answers import by_target, clean_answers, target_order
from mergerisk.study.tables.blocks import stack
from mergerisk.transfer import final_iterates

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.store import Store
    from mergerisk.study.plan import Plan


class Gathered:
    """A plan whose artefacts exist, and what several tables take from them.

    Args:
        plan: the plan.
        store: where its artefacts are.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan = plan
        self.store = store

    @cached_property
    def iterates(self) -> pd.DataFrame:
        """One row per image, surrogate, attack, budget, seed, target and number of steps kept.

        Raises:
            DamagedArtefactError: an artefact failed its checksum.
        """
        return collect_iterates(self.plan, self.store)

    @cached_property
    def final(self) -> NDArray[np.bool_]:
        """Which of :attr:`iterates` are their attack's last."""
        return final_iterates(self.iterates)


def collect_iterates(plan: Plan, store: Store) -> pd.DataFrame:
    """See :attr:`Gathered.iterates`."""
    blocks = []
    clean = {(run.seed, run.task): clean_answers(run, store) for run in plan.task_runs}
    for sweep in plan.sweeps:
        said_clean = clean[sweep.seed, sweep.task]
        # Targets × budgets × iterates × images.
        said = {
            target: predictions
            for evaluation in sweep.evaluations
            for target, predictions in by_target(evaluation, store.get(evaluation.key).arrays["predictions"])
        }
        for position, (epsilon, key) in enumerate(zip(sweep.epsilons, sweep.crafted, strict=True)):
            crafted = store.get(key).arrays
            images = crafted["indices"]
            for target in target_order(plan, said):
                for iterate, steps in enumerate(sweep.steps):
                    names = {
                        "task": sweep.task,
                        "attack": sweep.attack,
                        "surrogate": sweep.surrogate,
                        "target": target,
                        "epsilon": epsilon,
                        "seed": sweep.seed,
                        "steps": steps,
                    }
                    columns = {
                        "image": images,
                        "label": crafted["labels"],
                        "surrogate_clean": said_clean[sweep.surrogate].predictions[images],
                        "target_clean": said_clean[target].predictions[images],
                        "surrogate_adversarial": said[sweep.surrogate][position, iterate],
                        "target_adversarial": said[target][position, iterate],
                        "aimed_at": crafted["aimed_at"],
                        "l2": crafted["l2"][iterate],
                        "linf": crafted["linf"][iterate],
                        "zero_gradients": crafted["zero_gradients"],
                    }
                    blocks.append((names, columns))
    return stack(blocks, [])
