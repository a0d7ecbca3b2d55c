"""Run a plan's stages on a Ray cluster, a task each; the store is a folder that every node shares, or a bucket, of
which every node keeps copies of its own.

Only this process plans and schedules. Ray is asked for one task per stage, with what the stage needs, and for no
more at once than it has room for; what a lost node was making is handed out again.
"""

from __future__ import annotations

import pickle
import socket
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk._version import __version__
from mergerisk.errors import UserError, first_line
from mergerisk.study.executors.attempt import Outcome, attempt_elsewhere, is_away, is_made
from mergerisk.study.executors.crew import Crew
from mergerisk.study.executors.loop import PATIENCE
from mergerisk.study.executors.needs import Needs, large_model, needs_of
from mergerisk.study.executors.worker import ENVIRONMENT
from mergerisk.threads import cores

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from mergerisk.store import Store
    from mergerisk.study.executors.crew import Hire
    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage
    from mergerisk.study.timing import Speeds
    from mergerisk.study.workbench import Workbench

_LOOK_EVERY = 5.0
"""Seconds between looks at which nodes there are."""
_ANSWERS_WITHIN = 10.0
"""Seconds in which a cluster has to answer at all."""
_OBJECTS = 128 * 2**20
"""Bytes for objects in memory on one's own cluster: none but keys and outcomes travel."""


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray's module, connected to a cluster; to the one that this process is connected to already, if it is.

    Args:
        address: of the cluster; None for one of this machine's own.
        workers: cores of that one; None for all that this process may use.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"--executor ray: Ray cannot be imported ({first_line(error)}): pip install 'mergerisk[ray]'"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": ENVIRONMENT},
    }
    if address is None:
        options |= {"num_cpus": workers or cores(), "include_dashboard": False, "object_store_memory": _OBJECTS}
    else:
        _check_answers(address)
        options["address"] = address
    try:
        ray.init(**options)
    except Exception as error:  # a bare one, where a node is too slow to start
        if address is not None and _asks_for_a_token(error):
            raise UserError(
                f"--address {address}: the Ray cluster asks for a token; set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN to what ~/.ray/auth_token holds where it was started, unless that file is here too"
            ) from error
        where = "Ray does not start" if address is None else f"--address {address}: no Ray cluster answers there"
        raise UserError(f"{where}: {first_line(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _asks_for_a_token(error: BaseException | None) -> bool:
    """Whether that is why a cluster was not joined, which Ray says somewhere in the chain of errors."""
    while error is not None:
        if "AuthenticationError" in f"{type(error).__name__} {error}":
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_answers(address: str) -> None:
    """Raises:
    UserError: nothing listens at the address; Ray itself would wait for minutes.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address {address}: an address of a Ray cluster is HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address {address}: nothing answers there: {first_line(error)}; give what `ray start --head` "
            "printed"
        ) from error


def resolve_cluster_device(ray: Any, device: str) -> str:
    """``cpu`` or ``cuda``, by what the cluster has.

    Raises:
        UserError: it has none of it.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise UserError(f"--device {device}: which GPU a stage gets is Ray's choice; use auto, cpu or cuda")
    there = ray.cluster_resources().get("GPU", 0) >= 1
    if device == "cuda" and not there:
        raise UserError("--device cuda: no node of the Ray cluster has a GPU; use --device cpu or auto")
    return "cuda" if there and device != "cpu" else "cpu"


@dataclass(frozen=True)
class _Node:
    """What one node of the cluster has."""

    cpus: float
    gpus: float
    memory: float

    def room(self, needs: Needs) -> int:
        """Stages with these needs that it holds at once."""
        limits = [self.cpus]
        limits += [self.gpus / needs.gpus] if needs.gpus else []
        limits += [self.memory / needs.memory] if needs.memory else []
        return int(min(limits))


def nodes_of(ray: Any) -> list[_Node]:
    """Those that are alive."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [_Node(has.get("CPU", 0), has.get("GPU", 0), has.get("memory", 0)) for has in found]


def places(ray: Any, device: str) -> int:
    """Stages that the cluster as it is makes at once."""
    needs = Needs(int(device == "cuda"), 0)
    return sum(node.room(needs) for node in nodes_of(ray))


class RayCrew(Crew):
    """A cluster's nodes, a task per stage.

    Args:
        ray: the module, connected.
        store: a folder that every node shares, under the same path; or a bucket's.
        device: ``cpu`` or ``cuda``.
        workers: stages at once; None for as many as there is room for.
        batch_size: images at a time.
    """

    def __init__(self, ray: Any, store: Store, device: str, workers: int | None, batch_size: int) -> None:
        self._ray = ray
        self._store = store
        self._device = device
        self._workers = workers
        self._batch_size = batch_size
        self._task = ray.remote(attempt_on_node)
        self._running: dict[Any, tuple[Stage, str]] = {}
        self._lines: dict[str, Needs] = {}
        self._model = ""
        """A large one that a stage was given last: which process makes the next is Ray's choice, so that all are
        kept at one model."""
        self._nodes = nodes_of(ray)
        self._looked = self._had_room = time.monotonic()

    def line(self, stage: Stage) -> str:
        needs = needs_of(stage, self._store, self._device)
        name = f"{needs.gpus} {needs.memory}"
        self._lines[name] = needs
        return name

    def lines(self) -> Collection[str]:
        if self._workers is not None and len(self._running) >= self._workers:
            return ()
        taken = Counter(line for _, line in self._running.values())
        gpus = sum(self._lines[name].gpus * count for name, count in taken.items())
        free = int(sum(node.gpus for node in self._nodes)) - gpus
        cores = int(sum(node.cpus for node in self._nodes)) - taken.total()

        def fits(name: str, needs: Needs) -> bool:
            room = self._room(needs)
            # Of what no node has now, one is asked for all the same: a node may join, or come back.
            return not taken[name] if not room else taken[name] < room and cores > 0 and needs.gpus <= free

        return [name for name, needs in self._lines.items() if fits(name, needs)]

    def _room(self, needs: Needs) -> int:
        needs = self._possible(needs)
        return sum(node.room(needs) for node in self._nodes)

    def _possible(self, needs: Needs) -> Needs:
        """No more memory than some node has: what is a guess must not keep a stage from being tried."""
        most = max((node.memory for node in self._nodes if node.gpus >= needs.gpus), default=0)
        return replace(needs, memory=int(min(needs.memory, most)))

    def near(self) -> Collection[str]:
        return {self._model} - {""}

    def start(self, stage: Stage, wait: bool) -> None:
        self._model = large_model(stage, self._store) or self._model
        line = self.line(stage)
        needs = self._possible(self._lines[line])
        task = self._task.options(
            num_cpus=1,
            num_gpus=needs.gpus,
            memory=needs.memory or None,
            max_retries=0,  # those are the loop's, which says what is going on
            name=stage.noun,
        )
        # Where there is nothing to ask a GPU for, none is given.
        order = _Order(
            str(self._store.root.resolve()),
            self._store.bucket,
            self._device if needs.gpus else "cpu",
            self._batch_size,
            wait,
            __version__,
        )
        self._running[task.remote(pickle.dumps(stage), order)] = (stage, line)

    def ended(self) -> tuple[Stage, Outcome]:
        while True:
            ready, _ = self._ray.wait([*self._running], num_returns=1, timeout=_LOOK_EVERY)
            self._look()
            if ready:
                stage, _ = self._running.pop(ready[0])
                return stage, self._checked(stage, self._outcome(ready[0], stage))

    def _look(self) -> None:
        """Which nodes there are now.

        Raises:
            UserError: for a long time there has been none that has what the stages ask for.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked, self._nodes = now, nodes_of(self._ray)
        if any(self._room(self._lines[line]) for _, line in self._running.values()):
            self._had_room = now
        elif now - self._had_room > PATIENCE:
            stage, line = next(iter(self._running.values()))
            wanted = "a GPU" if self._lines[line].gpus else "a core"
            raise UserError(
                f"for {PATIENCE / 60:g} minutes no node of the Ray cluster has had {wanted} for stage "
                f"{stage.kind} ({stage.label}); add one and run again: everything finished is kept"
            )

    def _outcome(self, made: Any, stage: Stage) -> Outcome:
        """What a task answered, or why it did not."""
        errors = self._ray.exceptions
        try:
            return Outcome(**self._ray.get(made))
        except errors.RuntimeEnvSetupError as error:
            return Outcome("mistake", detail=f"a node of the Ray cluster cannot be set up: {first_line(error)}")
        except errors.RayTaskError as error:
            if isinstance(error.cause, ImportError):
                what = f"a node of the Ray cluster cannot import mergerisk: {first_line(error.cause)}"
                return Outcome("mistake", detail=f"{what}; install mergerisk {__version__} on every node")
            return Outcome("fault", detail=str(error))
        except errors.RayError as error:
            return Outcome(
                "lost",
                detail=f"whoever made stage {stage.kind} ({stage.label}) was lost again and again "
                f"({type(error).__name__}); if memory ran out, use fewer --workers or nodes with more; everything "
                "finished is kept: run again to resume",
            )

    def _checked(self, stage: Stage, outcome: Outcome) -> Outcome:
        """The outcome, unless the node does not see what this process sees."""
        unseen = outcome.status == "away" or (outcome.status == "done" and not is_made(stage, self._store))
        if not unseen or is_away(self._store):
            return replace(outcome, status="away") if unseen else outcome
        time.sleep(1.0)  # a share may take a moment to show what is new
        if outcome.status == "done" and is_made(stage, self._store):
            return outcome
        advice = (
            "the run's folder, or --store, must be in a folder that every node shares, under the same path"
            if self._store.bucket is None
            else "AWS_ENDPOINT_URL and what else names the bucket's server must be the same on every node"
        )
        where = self._store.bucket or self._store.root.resolve()
        return Outcome("lost", detail=f"a node of the Ray cluster does not see the store at {where}; {advice}")


@dataclass(frozen=True)
class _Order:
    """How a node is to attempt a stage."""

    store: str
    bucket: str | None
    device: str
    batch_size: int
    wait: bool
    version: str


def attempt_on_node(packed: bytes, order: _Order) -> dict[str, Any]:
    """A Ray task: attempt a pickled stage; keys and parameters come, how it ended goes back."""
    if order.version != __version__:
        return asdict(
            Outcome(
                "mistake",
                detail=f"{socket.gethostname()} has mergerisk {__version__}, and the run was started with "
                f"{order.version}; install the same on every node",
            )
        )
    try:
        if order.bucket is None and not (Path(order.store) / "objects").is_dir():
            return asdict(Outcome("away"))  # to open it would be to make another
        bench = _bench(order.store, order.bucket, order.device, order.batch_size)
        stage = pickle.loads(packed)  # from the process that runs the plan
    except UserError as error:
        return asdict(Outcome("mistake", detail=str(error)))
    except Exception:
        return asdict(Outcome("fault", detail=traceback.format_exc()))
    return asdict(attempt_elsewhere(stage, bench, wait=order.wait))


@lru_cache(maxsize=1)
def _bench(store: str, bucket: str | None, device: str, batch_size: int) -> Workbench:
    """What a node's process keeps between its tasks."""
    import torch

    from mergerisk.store import copies_of, open_store
    from mergerisk.study.workbench import Compute, Workbench

    # One thread a task: sums are then split the same way on every machine, whatever its number of cores.
    torch.set_num_threads(1)
    folder = Path(store) if bucket is None else copies_of(bucket)
    return Workbench(open_store(folder, bucket), Compute(device, batch_size))


def measured_on_node(ray: Any, study: Study, device: str) -> Speeds:
    """What a worker of the cluster does in a second, on whichever node takes the task."""
    task = ray.remote(_measure).options(num_cpus=1, num_gpus=int(device == "cuda"), max_retries=0, name="measure")
    from mergerisk.study.timing import Speeds

    try:
        return Speeds(**ray.get(task.remote(pickle.dumps(study), device)))
    except ray.exceptions.RayError as error:
        raise UserError(f"no node of the Ray cluster could be measured: {first_line(error)}") from error


def _measure(packed: bytes, device: str) -> dict[str, Any]:
    from mergerisk.study.timing import measure_speeds

    return asdict(measure_speeds(pickle.loads(packed), device))


def hire_ray(ray: Any, device: str, workers: int | None, batch_size: int) -> Hire:
    """A cluster's nodes; see :class:`RayCrew`."""

    @contextmanager
    def hire(store: Store, left: int) -> Iterator[Crew]:  # noqa: ARG001  # Ray starts processes as they are needed
        yield RayCrew(ray, store, device, workers, batch_size)

    return hire
