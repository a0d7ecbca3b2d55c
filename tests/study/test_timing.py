"""How long a plan will take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from mergerisk.study import load_study, make_plan
from mergerisk.study.keyed import Input
from mergerisk.study.spans import span, spans
from mergerisk.study.timing import Speeds, measure_speeds
from tests.cli.test_cli import call
from tests.study.toy_stages import Toy

if TYPE_CHECKING:
    from pathlib import Path


def test_time_is_images_over_speed_and_queries_have_none() -> None:
    speeds = Speeds({"forward": 100.0, "gradient": 20.0}, "here")
    stages = [
        Toy(label="a", images={"forward": 50}),
        Toy(label="b", images={"gradient": 60, "forward": 100}),
        Toy(label="c", images={"query": 1000}),
    ]
    assert speeds.seconds(stages) == pytest.approx(0.5 + 3 + 1)


def test_a_span_is_that_of_a_run_with_so_many_workers() -> None:
    """Stages of 10, 11, 12 and 40 s, and one of 5 s that needs the first: by hand, in the plan's order."""
    speeds = Speeds({"forward": 1.0}, "here")
    first, *rest = (Toy(label=str(n), number=n, images={"forward": n}) for n in (10, 11, 12, 40))
    last = Toy(label="last", number=5, needs=(Input(first.key),), images={"forward": 5})
    stages = {stage.key: stage for stage in (first, *rest, last)}
    assert span(stages, stages, speeds, 1) == 78
    assert span(stages, stages, speeds, 2) == 51  # 10 12 5 and 11 40
    assert span(stages, stages, speeds, 5) == 40
    assert span(stages, stages.keys() - {first.key}, speeds, 9) == 40
    assert spans(stages, stages, speeds, [3]) == {1: 78, 2: 51, 3: 50, 4: 40}


def test_every_kind_of_pass_is_measured(tiny_study: Path) -> None:
    threads = torch.get_num_threads()
    speeds = measure_speeds(load_study(tiny_study), "cpu", batch_size=8, least=0.01)
    assert set(speeds.images) == {"forward", "gradient", "training"}
    assert min(speeds.images.values()) > 0
    assert torch.get_num_threads() == threads
    assert speeds.seconds(make_plan(load_study(tiny_study)).stages.values()) > 0


def test_a_speed_leaves_the_warm_up_out_and_measures_long_enough(
    monkeypatch: pytest.MonkeyPatch, tiny_study: Path
) -> None:
    """Of a clock whose first pass of a kind takes 60 s and every later one 0.5 s, the speed is two passes a second."""
    now, passes = [0.0], [0]

    def clock() -> float:
        passes[0] += 1
        if passes[0] % 2 == 0:  # the end of a pass: three of each kind, of which the first warms up
            now[0] += 60.0 if passes[0] % 6 == 2 else 0.5
        return now[0]

    monkeypatch.setattr("mergerisk.study.timing.time.perf_counter", clock)
    speeds = measure_speeds(load_study(tiny_study), "cpu", batch_size=8, least=1.0)
    assert speeds.images == pytest.approx(dict.fromkeys(("forward", "gradient", "training"), 16.0))


def test_the_plan_says_it(capsys: pytest.CaptureFixture[str], tiny_study: Path) -> None:
    code, out, err = call(capsys, "plan", tiny_study, "--measure", "--device", "cpu")
    assert code == 0, err
    assert "of computing for one worker, reading and writing not counted (CPU, one thread: " in out
    assert "\nfrom start to end " in out
    assert "with 1 worker, " in out
    assert "(as here)" in out
    assert out.count("; more gain less than a tenth") == 1
    code, out, _ = call(capsys, "plan", tiny_study)
    assert code == 0
    assert "for one worker" not in out
