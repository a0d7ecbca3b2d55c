"""From a study to a graph of stages, each with the key under which its result is kept.

Adversarial images depend on surrogate, task, attack, budget and seed, not on any merge: a ``Craft`` stage makes
them once, and an ``Evaluate`` stage per encoder shows the whole sweep of budgets to it.
"""

from __future__ import annotations

from mergerisk.study.plan import Evaluation, Plan, Sweep, TaskRun
from mergerisk.study.planning.attacks import single_step_attacks
from mergerisk.study.planning.planner import make_plan

__all__ = ["Evaluation", "Plan", "Sweep", "TaskRun", "make_plan", "single_step_attacks"]
