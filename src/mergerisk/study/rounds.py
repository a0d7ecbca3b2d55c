"""Make what a plan lacks, collect what it left, and make again whatever of it turns out damaged."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from mergerisk.errors import UserError
from mergerisk.store import LostArtefactError
from mergerisk.study.executors.attempt import Outcome
from mergerisk.study.executors.events import StageEnded, nobody, tell_end
from mergerisk.study.executors.loop import run_stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.store import Store
    from mergerisk.study.executors.crew import Hire
    from mergerisk.study.executors.events import Event, Listener
    from mergerisk.study.planning import Plan

T = TypeVar("T")

_MOST_REMADE = 3
"""Times that one damaged artefact is made again in a run."""


def run_and_collect(
    plan: Plan,
    store: Store,
    hire: Hire,
    collect: Callable[[], T],
    *,
    listener: Listener = nobody,
) -> tuple[T, frozenset[str]]:
    """What ``collect`` reads from the store once every stage is done.

    Whatever needs the store after the stages belongs into ``collect``: what it finds damaged or gone is made
    again, and it is called anew.

    Args:
        plan: the stages.
        store: where their artefacts are.
        hire: who makes them.
        collect: reads artefacts; nothing it did before it failed may matter.
        listener: told of every stage's start and end, and of every artefact that was found damaged. What it raises
            ends the run.

    Returns:
        What ``collect`` gave, and the keys of the artefacts that were found damaged.

    Raises:
        UserError: a stage's material is at fault, or the disk damages one artefact again and again.
    """
    remade: Counter[str] = Counter()
    """How often each artefact that was found damaged was made again; several workers may find the same damage."""

    def watch(event: Event) -> None:
        if isinstance(event, StageEnded):
            stage, outcome = event.stage, event.outcome
            if outcome.status == "damaged":
                remade[stage.key] += 0
                if remade[stage.key] >= _MOST_REMADE:
                    raise UserError(
                        f"{store.root}: what stage {stage.kind} ({stage.label}) left was found damaged again "
                        f"after it was made again {_MOST_REMADE} times; the disk is not sound, choose another "
                        "--store"
                    )
            elif outcome.status == "done" and outcome.seconds and stage.key in remade:
                remade[stage.key] += 1
        listener(event)

    while True:
        run_stages(plan, store, hire, listener=watch)
        try:
            return collect(), frozenset(remade)
        except LostArtefactError as error:
            damaged = Outcome("damaged", detail=error.key)
            tell_end(watch, plan.stages[error.key], damaged)  # the next round makes it again
