"""A study on a Ray cluster of two nodes on this machine, each a ``ray start`` of one core, and what goes wrong.

    python benchmarks/two_nodes.py [STAGES]

1. STAGES (100 by default) that do nothing, as in :mod:`scheduling`: what handing one out takes.
2. A smaller study than there, from nothing each time: in this process; on both nodes; while a worker is killed
   that is crafting; while every process of the second node is, once it crafts. Said of each: seconds, attempts
   that were lost, and whether its outcomes are those of this process, to the byte.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mergerisk as mr
from idle_stages import Idle
from mergerisk.store import Store
from mergerisk.study import make_plan
from mergerisk.study.executors.events import StageEnded
from mergerisk.study.executors.hiring import workforce
from mergerisk.study.reading import parse_study
from scheduling import STUDY, plan_of, seconds_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mergerisk.study.executors.events import Event

_SMALL = STUDY | {"images_per_task": 32, "budgets": {"epsilon": ["1/255", "4/255", "8/255"], "steps": 10}}
_EACH = ["--num-cpus", "1", "--object-store-memory", str(80 * 2**20), "--disable-usage-stats", "--block"]
_OUTCOMES = ("outcomes.parquet", "clean.parquet")
_CRAFTS = b"ray::craft"
"""What Ray calls a process that crafts."""


@contextmanager
def node(*options: str) -> Iterator[int]:
    """A node of a cluster: ``ray start`` and all that it starts; gives their session, by which they are found."""
    ray = Path(sys.executable).parent / "ray"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(ray), "start", *options, *_EACH], start_new_session=True, **quiet) as started:  # type: ignore[call-overload]
        try:
            yield started.pid
        finally:
            kill(started.pid)


def members(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name, in parentheses, may hold spaces; after it come state, parent, group and session.
                belongs = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
            except OSError:  # it ended meanwhile
                continue
            if belongs == session:
                found.append(int(folder.name))
    return found


def crafting(session: int) -> list[int]:
    """Those of a node that are crafting now."""
    found = []
    for process in members(session):
        try:
            title = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(_CRAFTS):
            found.append(process)
    return found


def kill(session: int) -> None:
    """Every process of a node, at once."""
    for process in members(session):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def once(found: Callable[[], list[int]]) -> list[int]:
    """What is looked for, as soon as there is some; nothing after two minutes."""
    deadline = time.monotonic() + 120
    while not (there := found()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return there


def timed(
    place: Path, address: str | None, disturb: Callable[[], object] | None = None
) -> tuple[float, int, list[bytes]]:
    """Run the study from nothing; seconds, attempts that were lost, and outcomes."""
    told: list[str] = []
    thread = threading.Thread(target=disturb or (lambda: None))

    def listen(event: Event) -> None:
        if isinstance(event, StageEnded):
            told.append(event.outcome.status)
        if not thread.ident:
            thread.start()

    start = time.perf_counter()
    study = parse_study(dict(_SMALL), Path())
    mr.run(
        study,
        place,
        executor="local" if address is None else "ray",
        address=address,
        workers=1 if address is None else None,
        progress=False,
        listeners=[listen],
    )
    seconds = time.perf_counter() - start
    thread.join()
    outcomes = [(place / name).read_bytes() for name in _OUTCOMES]
    shutil.rmtree(place)
    return seconds, told.count("lost"), outcomes


def wait_for_both(address: str) -> None:
    """Until both nodes are there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with workforce(executor="ray", address=address) as crew:
            if crew.workers == 2:
                return
        time.sleep(1)
    raise SystemExit("the second node does not join")


def main(count: int) -> None:
    """Both."""
    # Nodes import the stages of this folder.
    here = str(Path(__file__).parent)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    stages = make_plan(parse_study(dict(_SMALL), Path())).stages
    print(f"{len(stages)} stages; load of this machine: {os.getloadavg()[0]:.1f}", flush=True)
    with (
        tempfile.TemporaryDirectory() as made,
        node("--head", "--port", str(port), "--include-dashboard", "false") as head,
    ):
        place = Path(made)
        seconds, _, expected = timed(place / "local", None)
        print(f"this process: {seconds:.0f} s", flush=True)
        with node("--address", address) as second:
            wait_for_both(address)
            with workforce(executor="ray", address=address) as crew:
                idle = [Idle(label=str(number), number=number) for number in range(count)]
                each = seconds_each(plan_of(idle), Store(place / "idle"), crew)
                print(f"two nodes: {1000 * each:.1f} ms per idle stage", flush=True)

            def end_worker() -> None:
                os.kill(once(lambda: [*crafting(head), *crafting(second)])[0], signal.SIGKILL)

            def end_node() -> None:
                once(lambda: crafting(second))
                kill(second)

            for what, disturb in (("two nodes", None), ("a worker killed", end_worker), ("a node lost", end_node)):
                seconds, lost, outcomes = timed(place / "run", address, disturb)
                same = "equal" if outcomes == expected else "NOT EQUAL"
                print(f"{what}: {seconds:.0f} s, {lost} attempts lost, outcomes {same}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
