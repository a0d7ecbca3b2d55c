"""A plan whose long stages are made in parts, so that one big setting has many workers too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mergerisk.study.kinds.shards import Divisible

if TYPE_CHECKING:
    from mergerisk.store import Store
    from mergerisk.study.plan import Plan
    from mergerisk.study.stage import Stage


def divided(plan: Plan, store: Store, shards: int, batch_size: int) -> Plan:
    """The same plan, in which every stage that is missing, and can be, is joined from so many shards.

    Args:
        plan: the stages; the keys of all of them stay.
        store: where their artefacts are.
        shards: parts of each, at most one per batch; 1 leaves the plan as it is.
        batch_size: images at a time.
    """
    if shards == 1:
        return plan
    stages: dict[str, Stage] = {}
    for key, stage in plan.stages.items():
        if isinstance(stage, Divisible) and not store.has(key):
            parts, stage = stage.divided(shards, batch_size)
            stages |= {part.key: part for part in parts}
        stages[key] = stage
    return replace(plan, stages=stages)
