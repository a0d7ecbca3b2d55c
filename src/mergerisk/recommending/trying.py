"""Recipes as stages of a study: several at once, on the store that all share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mergerisk.recommending.composing import compose
from mergerisk.recommending.scoring import scores
from mergerisk.report.prices import holders
from mergerisk.study.planning import make_plan
from mergerisk.study.rounds import run_and_collect
from mergerisk.study.tables.catalogue import ALWAYS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pandas as pd

    from mergerisk.recommending.recipe import Recipe
    from mergerisk.recommending.scoring import Score
    from mergerisk.store import Store
    from mergerisk.study.executors.crew import Hire
    from mergerisk.study.executors.events import Listener
    from mergerisk.study.plan import Evaluation, Plan
    from mergerisk.study.schema import Study
    from mergerisk.tasks.outline import Outline
    from mergerisk.tasks.source import TaskSource


@dataclass(frozen=True)
class Trying:
    """What recipes are tried with.

    Attributes:
        study: see :func:`~mergerisk.recommending.composing.to_search`; with folders for models of the hub.
        outlines: of its tasks.
        store: where artefacts are.
        hire: who makes them.
        listener: told what happens; what it raises ends the round.
    """

    study: Study
    outlines: Mapping[TaskSource, Outline]
    store: Store
    hire: Hire
    listener: Listener

    def plan(self, recipes: Sequence[Recipe]) -> tuple[Plan, dict[Recipe, str]]:
        """The stages that recipes need, and what the plan calls these."""
        study, labels = compose(self.study, dict.fromkeys(recipes))
        plan = make_plan(study, outlines=self.outlines, further=False)
        return only(plan, {*labels.values()}), labels

    def __call__(self, recipes: Sequence[Recipe]) -> list[Score | None]:
        """Where they stand, in their order; None of one that no attack can be counted on."""
        plan, labels = self.plan(recipes)
        attackers = tuple(holders(plan.study))

        def collect() -> tuple[pd.DataFrame, pd.DataFrame]:
            from mergerisk.study.tables.gathered import Gathered

            gathered = Gathered(plan, self.store)
            outcomes, _, clean = (table.collect(gathered, ()) for table in ALWAYS)
            return outcomes, clean

        (outcomes, clean), _ = run_and_collect(plan, self.store, self.hire, collect, listener=self.listener)
        found = scores(outcomes, clean, labels.values(), attackers)
        return [found[labels[recipe]] for recipe in recipes]


def only(plan: Plan, labels: Collection[str]) -> Plan:
    """A plan without the answers that no figure of some targets, or of the base, needs, and without the stages
    behind these.

    Args:
        plan: of a study.
        labels: of the targets.
    """
    needed = {"pretrained", *labels, *(spec.label for spec in plan.study.surrogates)}

    def kept(evaluations: tuple[Evaluation, ...]) -> tuple[Evaluation, ...]:
        return tuple(one for one in evaluations if needed & one.target.columns.keys())

    task_runs = tuple(replace(run, clean=kept(run.clean)) for run in plan.task_runs)
    sweeps = tuple(replace(sweep, evaluations=kept(sweep.evaluations)) for sweep in plan.sweeps)
    keys = {run.task_key for run in task_runs}
    keys |= {one.key for run in task_runs for one in run.clean}
    keys |= {key for sweep in sweeps for key in (*sweep.crafted, *(one.key for one in sweep.evaluations))}
    left = [*keys]
    while left:
        for key in plan.stages[left.pop()].inputs.values():
            if key not in keys:
                keys.add(key)
                left.append(key)
    stages = {key: stage for key, stage in plan.stages.items() if key in keys}
    return replace(plan, stages=stages, task_runs=task_runs, sweeps=sweeps)
