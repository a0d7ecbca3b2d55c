"""Which stage runs when, without any stage running."""

from __future__ import annotations

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
    assert [scheduler.take(), scheduler.take()] == [(a, False), (b, False)]
    assert scheduler.take() is None
    scheduler.finish(a)
    assert scheduler.take() is None
    scheduler.finish(b)
    assert scheduler.take() == (c, False)
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


def test_a_line_that_is_not_served_holds_up_no_other() -> None:
    stages = chain()
    a, b, c = stages.values()
    scheduler = Scheduler(stages, done=(), line=lambda stage: stage.kind if stage is c else stage.label)
    assert scheduler.take(["b"]) == (b, False)
    assert scheduler.take(["b"]) is None
    scheduler.finish(b)
    assert scheduler.take(["b", c.kind]) is None
    assert scheduler.take(["a", "b", c.kind]) == (a, False)
    scheduler.finish(a)
    assert scheduler.take(["a", "b"]) is None
    assert scheduler.take([c.kind]) == (c, False)


def test_what_was_lost_comes_first_again() -> None:
    stages = chain()
    a, b, _ = stages.values()
    scheduler = Scheduler(stages, done=())
    assert [scheduler.take(), scheduler.take()] == [(a, False), (b, False)]
    scheduler.repeat(b)
    scheduler.repeat(a)
    assert [scheduler.take(), scheduler.take(), scheduler.take()] == [(a, False), (b, False), None]


def test_what_was_lost_comes_before_those_of_a_model_that_is_at_hand() -> None:
    lost, near = (Toy(label=label, number=number) for number, label in enumerate(["lost", "near"]))
    scheduler = Scheduler({one.key: one for one in (lost, near)}, done=(), model=lambda stage: stage.label)
    assert scheduler.take() == (lost, False)
    scheduler.repeat(lost)
    assert [scheduler.take(near=["near"]), scheduler.take(near=["near"])] == [(lost, False), (near, False)]


def test_stages_that_wait_for_what_is_made_again_are_not_handed_out_before() -> None:
    """d needed a as c does, and stood in line when c found a damaged."""
    stages = chain()
    a, b, c = stages.values()
    d = OtherToy(label="d", number=4, needs=(Input(a.key),))
    stages[d.key] = d
    scheduler = Scheduler(stages, done=[a.key, b.key])
    assert scheduler.take() == (c, False)
    scheduler.remake(c, a.key)
    assert scheduler.take() == (a, False)
    assert scheduler.take() is None
    scheduler.finish(a)
    assert [scheduler.take(), scheduler.take(), scheduler.take()] == [(c, False), (d, False), None]
