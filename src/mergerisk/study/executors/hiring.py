"""Who makes a study's stages, by what a person asks for."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mergerisk.errors import UserError
from mergerisk.study.devices import resolve_device, resolve_devices
from mergerisk.study.executors.local import hire_local
from mergerisk.threads import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mergerisk.study.executors.crew import Hire
    from mergerisk.study.schema import Study
    from mergerisk.study.timing import Speeds

Executor = Literal["local", "ray"]

BATCH_SIZE = 128
"""Images at a time."""
_MOST_CORES = 4
"""Workers that are started without being asked for."""


@dataclass(frozen=True)
class Workforce:
    """Who makes stages, and with what; nothing here changes what they make.

    Attributes:
        hire: has them come.
        device: what they compute on, as the run's record says it: ``cpu``, or ``cuda:0, cuda:1``.
        workers: stages that are made at once, on a cluster when it was joined.
        measure: times the backbone of a study on one of them.
    """

    hire: Hire
    device: str
    workers: int
    measure: Callable[[Study], Speeds]


@contextmanager
def workforce(
    *,
    executor: Executor = "local",
    address: str | None = None,
    device: str = "auto",
    devices: str | None = None,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Workforce]:
    """Who is asked for; a connection to a cluster lasts as long as the context.

    Args:
        executor: ``local``, or ``ray``.
        address: of a Ray cluster; None for one of this machine's own.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        devices: one local worker on each, as ``0,1``; instead of the other two.
        workers: processes; None for one per core, four at most, or one on a GPU. On a cluster, stages at
            once; None for as many as it has room for.
        batch_size: images at a time.

    Raises:
        UserError: options that exclude each other, a device that is not there, Ray that is not installed or not
            reached.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers must be 1 or more, got {workers}")
    if executor == "ray":
        if devices is not None:
            raise UserError("--devices names devices of this machine; a Ray cluster knows its own: leave it out")
        from mergerisk.study.executors.on_ray import (
            connected,
            hire_ray,
            measured_on_node,
            places,
            resolve_cluster_device,
        )

        with connected(address, workers) as ray:
            found = resolve_cluster_device(ray, device)
            count = workers or places(ray, found)

            def measure_there(study: Study) -> Speeds:
                return replace(measured_on_node(ray, study, found), workers=count)

            yield Workforce(hire_ray(ray, found, workers, batch_size), found, count, measure_there)
        return
    if address is not None:
        raise UserError(f"--address {address} is a Ray cluster's; add --executor ray")
    if devices is not None:
        named = resolve_devices(devices)
        if device != "auto" or workers not in {None, 1, len(named)}:  # 1 is what a call has by default
            raise UserError(
                f"--devices {devices} says who computes where, one worker each; leave out --device and --workers"
            )
    else:
        one = resolve_device(device)
        named = (one,) * (workers or (1 if one != "cpu" else min(cores(), _MOST_CORES)))

    def measure(study: Study) -> Speeds:
        from mergerisk.study.timing import measure_speeds

        return replace(measure_speeds(study, named[0]), workers=len(named))

    yield Workforce(hire_local(named, batch_size), ", ".join(dict.fromkeys(named)), len(named), measure)
