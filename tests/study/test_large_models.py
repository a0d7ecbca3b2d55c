"""Stages that are given one large model are made one after another, so that it is read once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.executors.local import _Processes, hire_local
from mergerisk.study.executors.loop import run_stages
from mergerisk.study.executors.needs import large_model
from mergerisk.study.executors.scheduler import Scheduler
from mergerisk.study.workbench import Workbench
from tests.heard import of_stages
from tests.study.toy_stages import Toy, model
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from mergerisk.study.stage import Stage

GIB = 2**30


def test_every_large_model_is_read_once_to_be_evaluated(
    tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_tiny_study(
        tmp_path,
        tiny_vit,
        merging=["weight_averaging", "task_arithmetic", "ties"],
        attacks=["fgsm", "i_fgsm"],
        surrogates=["expert", "pretrained"],
        budgets={"epsilon": ["4/255"], "steps": 2},
        experts={"fine_tune": {"epochs": 1, "batch_size": 16}},
    )
    for place in (
        "needs._SMALL",
        "workbench._LARGE",
        "workbench._MODEL_CACHE_BYTES",
    ):  # all are large, and kept alone
        home = "mergerisk.study.executors" if place.startswith("needs") else "mergerisk.study"
        monkeypatch.setattr(f"{home}.{place}", 0)
    made = make_plan(load_study(study))
    kinds: list[str] = []
    read: Counter[str] = Counter()
    load: Callable[..., Any] = Workbench._load_merged

    def counted(bench: Workbench, base: Any, state: Any, inside: Any) -> Any:
        if kinds[-1] == "evaluate":
            read[state.key] += 1
        return load(bench, base, state, inside)

    monkeypatch.setattr(Workbench, "_load_merged", counted)
    started = of_stages(lambda stage, event: kinds.append(stage.kind) if event == "started" else None)
    run_stages(made, Store(tmp_path / "store"), hire_local(["cpu"], 64), listener=started)
    asked = {
        stage.inputs["target/encoder"]
        for stage in made.stages.values()
        if stage.kind == "evaluate" and "target/encoder" in stage.inputs
    }
    assert len(asked) == 2 + 3  # experts and merges
    assert kinds.count("evaluate") == 2 * 2 * 2 * 5  # tasks, surrogates, attacks; with the base
    assert {*read.values()} == {1}
    assert len(read) >= len(asked) - 1, "the one that was crafted on last is there already"


class Reader:
    """A worker that notes which model it is given, where it is another than the one before."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def ask(self, stage: Stage, wait: bool) -> None:  # noqa: ARG002
        (given,) = stage.inputs.values()
        if self.read[-1:] != [given]:
            self.read.append(given)


def test_workers_keep_to_their_models_and_share_the_last(tmp_path: Path) -> None:
    store = Store(tmp_path)
    models = [model(store, 3 * GIB, 100 + number) for number in range(5)]
    stages = {
        stage.key: stage
        for sweep in range(6)
        for stage in (Toy(label="shown", number=sweep, needs=(made,)) for made in models)
    }
    workers: Any = [Reader(), Reader()]
    crew = _Processes(workers, store, None)
    scheduler = Scheduler(
        stages, {made.key for made in models}, crew.line, lambda stage: large_model(stage, store)
    )
    while True:
        while (taken := scheduler.take(crew.lines(), crew.near())) is not None:
            crew.start(*taken)
        if not crew._busy:
            break
        worker = next(iter(crew._busy))  # what began first ends first
        stage, _ = crew._busy.pop(worker)
        crew._free.append(worker)
        scheduler.finish(stage)
    first, second = (worker.read for worker in workers)
    assert {*first, *second} == {made.key for made in models}
    assert len(first) + len(second) <= len(models) + 1  # in the plan's order every stage would read one


def test_small_models_and_lower_ranks_go_by_the_plan(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small, large = model(store, 2**20, 100), model(store, GIB, 101)
    assert large_model(Toy(label="both", needs=(small, large)), store) == large.key
    assert large_model(Toy(label="one", needs=(small,)), store) == ""

    class Later(Toy):
        rank = 1

    plain = Toy(label="plain", number=1, needs=(small,))
    here = Later(label="here", number=2, needs=(large,))
    stages = {stage.key: stage for stage in (plain, here)}
    there = [small.key, large.key]
    scheduler = Scheduler(stages, there, model=lambda stage: large_model(stage, store))
    assert scheduler.take(near=[large.key]) == (plain, False), "many may wait for a stage of a lower rank"
    assert scheduler.take(near=[large.key]) == (here, False)
