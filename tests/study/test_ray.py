"""A real Ray cluster of two nodes, on which everything goes wrong that can: outcomes equal a local run's to the byte.

Starting Ray takes many seconds, so one cluster serves all, and few runs are made.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mergerisk as mr
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from tests.cli.test_cli import call
from tests.heard import of_stages
from tests.store.buckets import new_bucket, serving
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mergerisk.study import Stage

# Ray's own resources and warnings are not ours.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

NOUNS = ("fine-tune experts", "merge", "clean accuracy", "craft", "evaluate")
"""What Ray calls the processes that are making one of these."""
OUTCOMES = ("outcomes.parquet", "clean.parquet")

SMALL: dict[str, Any] = {
    "merging": ["weight_averaging", {"method": "weight_averaging+surgery", "surgery": {"steps": 2}}],
    "attacks": ["fgsm", "mi_fgsm"],
    "budgets": {"epsilon": ["8/255"], "steps": 2},
    "images_per_task": 6,
    "experts": {"fine_tune": {"epochs": 1}},
}


@pytest.fixture(scope="module")
def study(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_study(tmp_path_factory.mktemp("study"), tiny_vit, **SMALL)


@pytest.fixture(scope="module")
def local(study: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What a run in this process leaves."""
    folder = tmp_path_factory.mktemp("local") / "run"
    mr.run(study, folder, progress=False)
    return contents(folder)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where the two nodes keep copies of buckets."""
    return tmp_path_factory.mktemp("node"), tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def cluster(caches: tuple[Path, Path]) -> Iterator[Any]:
    """Two nodes of one core each, which take a server on this machine for S3."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    limits = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    first, second = ({"env_vars": {"XDG_CACHE_HOME": str(cache)}} for cache in caches)
    with serving():
        found = Cluster(initialize_head=True, head_node_args=limits | first | {"include_dashboard": False})
        found.add_node(**limits, **second)
        yield found
        found.shutdown()


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in OUTCOMES]


def busy(node: Any) -> list[int]:
    """The node's processes that are making a stage: Ray gives them the task's name."""
    (raylet,) = node.all_processes["raylet"]
    pid = raylet.process.pid
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:  # the node is gone
        return []
    return [child for child in map(int, found.split()) if is_busy(Path(f"/proc/{child}/cmdline"))]


def is_busy(title: Path) -> bool:
    try:
        name = title.read_bytes().rstrip(b"\0")
    except OSError:
        return False
    return name in {f"ray::{noun}".encode() for noun in NOUNS}


def once(condition: Callable[[], Any]) -> Any:
    """What a condition gives, once it gives something."""
    deadline = time.monotonic() + 600
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def test_a_worker_is_killed_and_the_store_is_away_for_a_while(
    study: Path, local: list[bytes], cluster: Any, tmp_path: Path
) -> None:
    out, moved, told = tmp_path / "run", tmp_path / "away", []
    nodes = [cluster.head_node, *cluster.worker_nodes]

    def disturb() -> None:
        os.kill(once(lambda: [pid for node in nodes for pid in busy(node)])[0], signal.SIGKILL)
        once(lambda: "lost" in told)
        once(lambda: told.count("done") >= 8)
        (out / "store").rename(moved)
        once(lambda: "away" in told)
        time.sleep(1)
        assert not (out / "store").exists(), "something was made where the store was"
        moved.rename(out / "store")

    thread = threading.Thread(target=disturb)

    def listen(_stage: Stage, event: str) -> None:
        told.append(event)
        if not thread.ident:
            thread.start()

    mr.run(
        study,
        out,
        executor="ray",
        address=cluster.address,
        workers=None,
        progress=False,
        listeners=[of_stages(listen)],
    )
    thread.join()
    assert contents(out) == local
    stages = make_plan(load_study(study)).stages
    assert told.count("done") >= len(stages)
    assert {"lost", "away"} <= {*told} <= {"started", "done", "busy", "damaged", "lost", "away"}
    store = Store(out / "store")
    for key in stages:
        store.get(key)  # every checksum holds


def test_a_plan_is_timed_on_a_node(study: Path, cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    address = ("--executor", "ray", "--address", cluster.address)
    code, out, _ = call(capsys, "plan", study, "--measure", *address)
    assert code == 0
    assert re.search(r"\(CPU, one thread: [\d,]+ forward, [\d,]+ gradient, [\d,]+ training images a second\)", out)
    assert " with 2 workers (as here)" in out


def test_nodes_share_a_bucket_and_nothing_else(
    study: Path, local: list[bytes], cluster: Any, caches: tuple[Path, Path], tmp_path: Path
) -> None:
    """A worker is killed meanwhile; afterwards another machine finds everything done."""
    out, bucket, told = tmp_path / "run", new_bucket("ray"), []
    nodes = [cluster.head_node, *cluster.worker_nodes]
    thread = threading.Thread(
        target=lambda: os.kill(once(lambda: [pid for node in nodes for pid in busy(node)])[0], signal.SIGKILL)
    )

    def listen(_stage: Stage, event: str) -> None:
        told.append(event)
        if not thread.ident:
            thread.start()

    elsewhere: dict[str, Any] = {"executor": "ray", "address": cluster.address, "workers": None, "store": bucket}
    mr.run(study, out, progress=False, listeners=[of_stages(listen)], **elsewhere)
    thread.join()
    assert contents(out) == local
    stages = make_plan(load_study(study)).stages
    assert told.count("done") == len(stages)
    assert {*told} == {"started", "done", "lost"}
    made = [{path.name for path in cache.glob("mergerisk/buckets/*/objects/*/*")} for cache in caches]
    assert all(made)
    assert made[0] | made[1] == {*stages}
    assert len([*out.glob("store/objects/*/*")]) < len(stages), "who plans fetches what it reads"
    mr.run(study, tmp_path / "another", store=bucket, progress=False)
    kinds = mr.study.load_run(tmp_path / "another").record["kinds"].values()
    assert all(took["cached"] == took["count"] for took in kinds)


def test_the_process_that_plans_is_killed_and_a_node_is_lost(
    study: Path, local: list[bytes], cluster: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "mergerisk", "run", str(study), "--out", str(out)]
    command += ["--executor", "ray", "--address", cluster.address]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    once(lambda: len(list((out / "store" / "objects").glob("*/*/manifest.json"))) >= 3)
    first.kill()
    first.wait()
    (node,) = cluster.worker_nodes
    told: list[str] = []

    def lose() -> None:
        once(lambda: busy(node))
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    mr.run(
        study,
        out,
        executor="ray",
        address=cluster.address,
        workers=None,
        progress=False,
        listeners=[of_stages(lambda _stage, event: told.append(event))],
    )
    thread.join()
    assert contents(out) == local
    # What the first run left was not made again.
    assert told.count("done") <= len(make_plan(load_study(study)).stages) - 3
