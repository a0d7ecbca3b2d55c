"""Run a plan's stages, with whichever crew."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.study.executors.attempt import is_away
from mergerisk.study.executors.events import StageStarted, nobody, tell_end
from mergerisk.study.executors.needs import large_model
from mergerisk.study.executors.scheduler import Scheduler

if TYPE_CHECKING:
    from mergerisk.store import Store
    from mergerisk.study.executors.attempt import Outcome
    from mergerisk.study.executors.crew import Hire
    from mergerisk.study.executors.events import Listener
    from mergerisk.study.planning import Plan
    from mergerisk.study.stage import Stage

PATIENCE = 600.0
"""Seconds that a store, or the machines that a stage asks for, may be away before the run ends."""
_LOOK_EVERY = 1.0
"""Seconds between looks for a store that is away."""
_MOST_LOST = 3
"""Attempts at one stage that may end with whoever made it gone, before that is taken for the stage's doing."""


class StageFailedError(RuntimeError):
    """A stage failed through a fault of ours; the message ends with its traceback."""


def run_stages(plan: Plan, store: Store, hire: Hire, *, listener: Listener = nobody) -> None:
    """Make every missing artefact of the plan.

    Args:
        plan: the stages.
        store: where artefacts go.
        hire: who makes them.
        listener: told of every start and end, and of artefacts that were found damaged. What it raises ends the
            run.

    Raises:
        UserError: a stage's material is at fault, the disk is full, memory does not suffice for a stage even while
            no other is made, or whoever made a stage was killed.
        StageFailedError: a fault of ours.
    """
    missing = {stage.key for stage in plan.missing(store)}
    if not missing:
        return
    store.share(plan.stages.keys() - missing)
    with hire(store, len(missing)) as crew:
        done = plan.stages.keys() - missing
        scheduler = Scheduler(plan.stages, done, crew.line, lambda stage: large_model(stage, store))
        lost: dict[str, int] = {}
        running, most = 0, math.inf
        while True:
            while running < most and (taken := scheduler.take(crew.lines(), crew.near())) is not None:
                stage, wait = taken
                listener(StageStarted(stage))
                crew.start(stage, wait)
                running += 1
            if not running:
                return
            stage, outcome = crew.ended()
            running -= 1
            if outcome.status == "full":
                if most == 1:  # it had the machine to itself
                    raise UserError(outcome.detail)
                most = max(1, running)
            elif outcome.status == "done":
                most = math.inf
            if outcome.status == "lost":
                lost[stage.key] = lost.get(stage.key, 0) + 1
                if lost[stage.key] >= _MOST_LOST:
                    raise UserError(outcome.detail)
            _settle(scheduler, stage, outcome)
            about = plan.stages[outcome.detail] if outcome.status == "damaged" else stage
            tell_end(listener, about, outcome)
            if outcome.status == "away":
                _await(store)


def _settle(scheduler: Scheduler, stage: Stage, outcome: Outcome) -> None:
    """How an attempt ended, told to the scheduler; a failure ends the run."""
    if outcome.status == "done":
        scheduler.finish(stage)
    elif outcome.status == "busy":
        scheduler.defer(stage)
    elif outcome.status == "damaged":
        scheduler.remake(stage, outcome.detail)
    elif outcome.status in {"lost", "away", "full"}:
        scheduler.repeat(stage)
    elif outcome.status == "mistake":
        raise UserError(outcome.detail)
    else:
        raise StageFailedError(f"stage {stage.kind} ({stage.label}) failed:\n{outcome.detail}")


def _await(store: Store) -> None:
    """Wait for a store that is away to come back.

    Raises:
        UserError: it does not.
    """
    since = time.monotonic()
    while is_away(store):
        if time.monotonic() - since > PATIENCE:
            raise UserError(
                f"{store.root}: the store has not been there for {PATIENCE / 60:g} minutes; bring it back, and "
                "run again: everything finished is kept"
            )
        time.sleep(_LOOK_EVERY)
