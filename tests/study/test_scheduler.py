"""Which stage runs when, without any stage running."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mergerisk.study.executors.scheduler import Scheduler
from mergerisk.study.keyed import Input
from tests.study.toy_stages import OtherToy, Toy

if TYPE_CHECKING:
    from mergerisk.study.stage import Stage


def chain() -> dict[str, Stage]:
    """a and b need nothing; c needs both."""
    a, b = Toy(label="a", number=1), Toy(label="b", number=2)
    c = OtherToy(label="c", needs=(Input(a.key), Input(b.key)))
    return {stage.key: stage for stage in (a, b, c)}


def test_stages_wait_for_their_inputs_and_end_with_none() -> None:
    stages = chain()
    a, b, c = stages.values()
    scheduler = Scheduler(stages, done=())
    assert scheduler.take() == (a, False)
    assert scheduler.take() == (b, False)
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(scheduler.take()))
    waiting.start()
    scheduler.finish(a)
    assert waiting.is_alive()
    scheduler.finish(b)
    waiting.join(timeout=5)
    assert taken == [(c, False)]
    scheduler.finish(c)
    assert scheduler.take() is None


def test_what_is_done_is_not_handed_out() -> None:
    stages = chain()
    a, b, c = stages.values()
    scheduler = Scheduler(stages, done=[a.key, b.key])
    assert scheduler.take() == (c, False)


def test_a_stage_another_run_makes_comes_last_and_is_waited_for() -> None:
    stages = chain()
    a, b, _ = stages.values()
    scheduler = Scheduler(stages, done=())
    scheduler.take()
    scheduler.defer(a)
    assert scheduler.take() == (b, False)
    scheduler.finish(b)
    assert scheduler.take() == (a, True)


def test_a_damaged_input_is_made_again_before_what_needs_it() -> None:
    stages = chain()
    a, b, c = stages.values()
    scheduler = Scheduler(stages, done=[a.key, b.key])
    scheduler.take()
    scheduler.remake(c, a.key)
    assert scheduler.take() == (a, False)
    scheduler.finish(a)
    assert scheduler.take() == (c, False)


def test_stopping_releases_whoever_waits() -> None:
    stages = chain()
    scheduler = Scheduler(stages, done=())
    scheduler.take()
    scheduler.take()
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(scheduler.take()))
    waiting.start()
    scheduler.stop()
    waiting.join(timeout=5)
    assert taken == [None]
