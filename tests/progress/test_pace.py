"""How much is done and how long what is left takes, from stages timed by a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from mergerisk.progress.pace import Pace, weight
from tests.study.toy_stages import OtherToy, Toy

if TYPE_CHECKING:
    from mergerisk.study.stage import Stage


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def stages(made: type[Toy], count: int, images: int) -> list[Stage]:
    return [made(label=f"{made.kind} {i}", number=i, images={"forward": images}) for i in range(count)]


def do(pace: Pace, clock: Clock, stage: Stage, seconds: float) -> None:
    pace.start(stage)
    clock.now += seconds
    pace.finish(stage, seconds)


def test_the_time_left_is_that_of_each_kinds_own_measured_seconds() -> None:
    clock = Clock()
    pace = Pace(clock)
    crafts, reads = stages(Toy, 10, 950), stages(OtherToy, 5, 0)
    pace.plan([*crafts, *reads], [*crafts, *reads])
    assert pace.remaining is None
    for read in reads[:4]:
        do(pace, clock, read, 2.0)
    assert pace.remaining is None  # nearly all that is left is crafting, of which nothing is known
    do(pace, clock, crafts[0], 10.0)
    # Nine of ten seconds each, and one of two.
    assert pace.remaining == pytest.approx(9 * 10.0 + 1 * 2.0)
    assert pace.elapsed == pytest.approx(4 * 2.0 + 10.0)


def test_a_kinds_first_stage_of_many_says_nothing() -> None:
    """It also imports and reads: ten times what the others take."""
    clock = Clock()
    pace = Pace(clock)
    crafts = stages(Toy, 200, 50)
    pace.plan(crafts, crafts)
    do(pace, clock, crafts[0], 10.0)
    assert pace.remaining is None
    for stage in crafts[1:4]:
        do(pace, clock, stage, 1.0)
    assert pace.remaining == pytest.approx(196 * 13.0 / 4)


def test_a_time_that_was_known_stays_known_when_what_is_left_was_never_timed() -> None:
    """A study crafts first and evaluates last, with little between."""
    clock = Clock()
    pace = Pace(clock)
    crafts, evaluations = stages(Toy, 20, 50), stages(OtherToy, 10, 50)
    pace.plan([*crafts, *evaluations], [*crafts, *evaluations])
    for done, craft in enumerate(crafts, 1):
        do(pace, clock, craft, 6.0)
        # An evaluation of as many images takes as long, as far as anybody knows.
        assert pace.remaining == pytest.approx((30 - done) * 6.0)
    do(pace, clock, evaluations[0], 1.0)
    assert pace.remaining == pytest.approx(9 * 1.0)


def test_the_first_seconds_name_no_time() -> None:
    clock = Clock()
    pace = Pace(clock)
    crafts = stages(Toy, 100, 50)
    pace.plan(crafts, crafts)
    do(pace, clock, crafts[0], 4.0)
    assert pace.remaining is None
    do(pace, clock, crafts[1], 4.0)
    assert pace.remaining == pytest.approx(98 * 4.0)


def test_workers_share_what_is_left_and_what_runs_is_partly_done() -> None:
    clock = Clock()
    pace = Pace(clock)
    crafts = stages(Toy, 6, 50)
    pace.plan(crafts, crafts)
    for stage in crafts[:2]:
        pace.start(stage)
    clock.now += 10.0
    for stage in crafts[:2]:
        pace.finish(stage, 10.0)
    assert pace.remaining == pytest.approx(4 * 10.0 / 2)
    for stage in crafts[2:4]:
        pace.start(stage)
    clock.now += 3.0
    assert pace.remaining == pytest.approx((4 * 10.0 - 2 * 3.0) / 2)
    clock.now += 1000.0
    assert pace.remaining == 0.0


def test_a_resumed_run_starts_where_it_is() -> None:
    pace = Pace(Clock())
    crafts = stages(Toy, 4, 50)
    pace.plan(crafts, crafts[3:])
    assert (pace.done["toy"], pace.stages["toy"]) == (3, 4)
    assert pace.share == pytest.approx(0.75)
    pace.finish(crafts[3], 0.0)
    assert pace.share == 1.0
    assert pace.finished
    assert pace.remaining == 0.0


def test_what_was_damaged_is_to_be_done_again_once() -> None:
    pace = Pace(Clock())
    crafts = stages(Toy, 2, 50)
    pace.plan(crafts, [])
    assert pace.finished
    for _ in range(3):  # three workers find it
        pace.add(crafts[0])
    assert pace.share == pytest.approx(0.5)
    assert not pace.finished
    pace.finish(crafts[0], 1.0)
    pace.finish(crafts[0], 0.0)  # asked for once more
    assert (pace.done["toy"], pace.share) == (2, 1.0)


def test_no_stage_is_free() -> None:
    (read,) = stages(OtherToy, 1, 0)
    assert weight(read) > 0
    assert weight(replace(read, images={"gradient": 4})) > weight(read)
