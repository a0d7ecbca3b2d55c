"""What is asked of a Ray cluster, and what is made of its answers, with a stand-in for Ray; the real one is in
``test_ray.py``."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.store import Store
from mergerisk.study.executors.loop import run_stages
from mergerisk.study.executors.on_ray import hire_ray, resolve_cluster_device
from mergerisk.study.keyed import Input
from mergerisk.study.timing import Speeds
from tests.cli.test_cli import call
from tests.heard import of_stages
from tests.study.toy_stages import Toy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

GIB = 2**30


class RayError(Exception):
    pass


class WorkerCrashedError(RayError):
    pass


class TaskError(RayError):
    cause: Exception = RuntimeError("broken")


class SetupError(RayError):
    pass


class ERRORS:
    RayError = RayError
    RayTaskError = TaskError
    RuntimeEnvSetupError = SetupError


@dataclass
class FakeRay:
    """Runs a task when it is asked how it ended; the one that was asked for last ends first."""

    machines: list[dict[str, float]]
    crashes: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    most: int = 0
    waiting: list[Callable[[], Any]] = field(default_factory=list)
    exceptions: Any = ERRORS

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"Alive": False, "Resources": {"CPU": 64, "GPU": 64}}
        return [dead, *({"Alive": True, "Resources": has} for has in self.machines)]

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": sum(has.get("GPU", 0) for has in self.machines)}

    def remote(self, function: Callable[..., Any]) -> Any:
        outer = self

        class Task:
            def __init__(self, options: dict[str, Any]) -> None:
                self._options = options

            def remote(self, *arguments: Any) -> Callable[[], Any]:
                outer.asked.append(self._options)
                outer.waiting.append(lambda: function(*arguments))
                outer.most = max(outer.most, len(outer.waiting))
                return outer.waiting[-1]

        return SimpleNamespace(options=lambda **options: Task(options))

    def wait(self, tasks: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return tasks[-1:], tasks[:-1]

    def get(self, task: Callable[[], Any]) -> Any:
        self.waiting.remove(task)
        if self.crashes:
            self.crashes -= 1
            raise WorkerCrashedError
        return task()


def run(
    ray: FakeRay,
    store: Store,
    stages: list[Toy],
    *,
    needed: Sequence[Toy] = (),
    device: str = "cpu",
    **options: Any,
) -> list[str]:
    """Run stages, and before them those that are needed and not there; returns what the listener was told."""
    there = {made.key: made for stage in stages for made in stage.needs}
    missing = [*needed, *stages]
    plan = SimpleNamespace(stages={**there, **{stage.key: stage for stage in missing}}, missing=lambda _: missing)
    told: list[str] = []
    run_stages(
        plan,  # type: ignore[arg-type]
        store,
        hire_ray(ray, device, options.get("workers"), 8),
        listener=of_stages(lambda stage, event: told.append(f"{event} {stage.label}")),
    )
    assert all(store.has(stage.key) for stage in stages)
    return told


def toys(count: int, **images: int) -> list[Toy]:
    return [Toy(label=str(number), number=number, images=images) for number in range(count)]


def test_a_stage_asks_for_what_it_needs_and_no_more_at_once_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mergerisk.study.executors.needs.stated_memory", lambda: 64 * GIB)
    store = Store(tmp_path)
    files = Toy(label="files", number=100)
    store.folder(files.key).mkdir(parents=True)
    with store.tensors(files.key).open("wb") as file:
        file.truncate(2 * GIB)  # which takes no room
    trains = Toy(label="trains", needs=(Input(files.key),), images={"training": 5})
    asks = Toy(label="asks", number=1, needs=(Input(files.key),), images={"query": 5})
    ray = FakeRay([{"CPU": 4, "GPU": 1, "memory": 64 * GIB}, {"CPU": 2, "GPU": 2, "memory": 6 * GIB}])
    run(ray, store, [*toys(8, forward=1), trains, asks], device="cuda")
    assert [(each["num_gpus"], each["memory"] / GIB) for each in ray.asked] == [
        *[(1, 2)] * 3,  # three GPUs
        (0, 6),  # 1.5 for a process, and two models of 2
        (1, 12),  # of the same model, so next: weights, gradients, moments; only the larger node has it
        *[(1, 2)] * 5,
    ]
    assert all(each["num_cpus"] == 1 and each["max_retries"] == 0 for each in ray.asked)


def test_workers_limit_how_many_stages_are_asked_for(tmp_path: Path) -> None:
    ray = FakeRay([{"CPU": 64, "memory": 640 * GIB}])
    run(ray, Store(tmp_path), toys(9), workers=4)
    assert ray.most == 4


def test_no_node_has_the_memory_that_is_guessed_and_the_stage_is_tried_all_the_same(tmp_path: Path) -> None:
    ray = FakeRay([{"CPU": 1, "memory": GIB}])
    run(ray, Store(tmp_path), toys(2))
    assert [each["memory"] for each in ray.asked] == [GIB, GIB]


def test_what_a_lost_worker_was_making_is_made_anew_but_not_for_ever(tmp_path: Path) -> None:
    ray = FakeRay([{"CPU": 1, "memory": 8 * GIB}], crashes=2)
    assert run(ray, Store(tmp_path / "a"), toys(1)) == [*["started 0", "lost 0"] * 2, "started 0", "done 0"]
    with pytest.raises(UserError, match=r"stage toy \(0\) was lost again and again \(WorkerCrashedError\)"):
        run(FakeRay([{"CPU": 1, "memory": 8 * GIB}], crashes=3), Store(tmp_path / "b"), toys(1))


def test_a_node_that_does_not_see_the_store_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mergerisk.study.executors.on_ray.time.sleep", lambda _: None)
    ray = FakeRay([{"CPU": 1, "memory": 8 * GIB}])
    elsewhere = tmp_path / "elsewhere"
    real = ray.remote
    ray.remote = lambda function: real(  # type: ignore[method-assign]
        lambda packed, order: function(packed, order.__class__(**{**order.__dict__, "store": str(elsewhere)}))
    )
    with pytest.raises(UserError, match="must be in a folder that every node shares, under the same path"):
        run(ray, Store(tmp_path / "here"), toys(1))
    assert not elsewhere.exists()
    Store(elsewhere)  # another store stands there: what is made does not come here
    with pytest.raises(UserError, match="does not see the store"):
        run(ray, Store(tmp_path / "here"), toys(1))


def test_a_node_with_another_version_or_without_the_package_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay([{"CPU": 1}])
    real = ray.remote
    ray.remote = lambda function: real(  # type: ignore[method-assign]
        lambda packed, order: function(packed, order.__class__(**{**order.__dict__, "version": "0.0"}))
    )
    with pytest.raises(UserError, match=r"the run was started with 0\.0; install the same on every node"):
        run(ray, Store(tmp_path), toys(1))

    def unknown(_: Any) -> Any:
        error = TaskError()
        error.cause = ModuleNotFoundError("No module named 'mergerisk'")
        raise error

    monkeypatch.setattr(ray, "get", unknown)
    with pytest.raises(UserError, match="cannot import mergerisk: No module named"):
        run(ray, Store(tmp_path), toys(1))


def test_devices_of_a_cluster_are_rays_to_choose() -> None:
    with_gpus, without = FakeRay([{"CPU": 1}, {"CPU": 1, "GPU": 4}]), FakeRay([{"CPU": 1}])
    assert resolve_cluster_device(with_gpus, "auto") == resolve_cluster_device(with_gpus, "cuda") == "cuda"
    assert resolve_cluster_device(with_gpus, "cpu") == resolve_cluster_device(without, "auto") == "cpu"
    with pytest.raises(UserError, match="no node of the Ray cluster has a GPU"):
        resolve_cluster_device(without, "cuda")
    with pytest.raises(UserError, match="which GPU a stage gets is Ray's choice"):
        resolve_cluster_device(with_gpus, "cuda:1")


def test_a_plan_is_timed_on_one_of_a_clusters_workers(
    tiny_study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ray: Any = FakeRay([{"CPU": 1}, {"CPU": 2}])
    ray.is_initialized = lambda: True
    monkeypatch.setitem(sys.modules, "ray", ray)
    speeds = Speeds(dict.fromkeys(("forward", "gradient", "training"), 100.0), "a node's CPU")
    monkeypatch.setattr("mergerisk.study.timing.measure_speeds", lambda _, device: {"cpu": speeds}[device])
    asked = ("plan", tiny_study, "--measure", "--executor", "ray")
    code, out, err = call(capsys, *asked)
    assert (code, err) == (0, "")
    assert ray.asked == [{"num_cpus": 1, "num_gpus": 0, "max_retries": 0, "name": "measure"}]
    assert "(a node's CPU: 100 forward, 100 gradient, 100 training images a second)" in out
    assert " with 3 workers (as here)" in out
    ray.crashes = 1
    code, _, err = call(capsys, *asked)
    assert (code, err) == (2, "mergerisk: no node of the Ray cluster could be measured: WorkerCrashedError\n")


def test_what_keeps_a_cluster_from_being_used_is_a_line(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(why: str, **options: Any) -> None:
        with pytest.raises(UserError, match=why):
            mr.run(tiny_study, tmp_path / "run", progress=False, **options)

    fails("--address 10.0.0.1:6379 is a Ray cluster's; add --executor ray", address="10.0.0.1:6379")
    fails("a Ray cluster knows its own: leave it out", executor="ray", devices="0,1")
    monkeypatch.setitem(sys.modules, "ray", None)
    fails(r"pip install 'mergerisk\[ray\]'", executor="ray")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    fails("an address of a Ray cluster is HOST:PORT", executor="ray", address="here")
    fails("127.0.0.1:1: nothing answers there", executor="ray", address="127.0.0.1:1")

    def joins(**_: Any) -> None:
        why = RuntimeError("ray.exceptions.AuthenticationError: RPC error: token is missing")
        raise ConnectionError("Failed to connect to Ray cluster") from why

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=joins))
    with socket.create_server(("127.0.0.1", 0)) as listens:
        address = f"127.0.0.1:{listens.getsockname()[1]}"
        fails("asks for a token; set RAY_AUTH_MODE=token", executor="ray", address=address)
