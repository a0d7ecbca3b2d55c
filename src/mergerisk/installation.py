"""What is installed, what this machine has, and what of it keeps a study from running. No library that computes is
loaded before it is looked at, and one that fails to load is a finding like any other."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mergerisk._version import __version__
from mergerisk.disk import KEPT_FREE, mebibytes
from mergerisk.errors import UserError, described, shown_text
from mergerisk.free_memory import stated_memory
from mergerisk.threads import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

State: TypeAlias = Literal["works", "missing", "unfit", "broken"]

_DEVELOPERS = frozenset({"test", "dev"})
"""Extras that no study needs."""

_OF_MODELS = frozenset({"timm", "open-clip"})
"""Extras that are another library's models, which come with torchvision."""

_LITTLE_DISK = 2**30
_LITTLE_MEMORY = 2**31
_LEAST_MEMORY = 2**29
"""PyTorch, transformers and the libraries for tables take 400 MiB by themselves."""


@dataclass(frozen=True)
class Package:
    """A distribution that mergerisk uses.

    Attributes:
        name: as an index has it.
        needs: the versions that will do, such as ``>=2.6``.
        extra: the extra of mergerisk that it comes with; None if every study needs it.
        installed: its version; None if it is not there.
        tested: the version that the suite is run with, where that is known.
        state: ``unfit`` is a version that will not do, ``broken`` one that cannot be imported.
        fault: what importing it says.
    """

    name: str
    needs: str
    extra: str | None
    installed: str | None
    tested: str | None
    state: State
    fault: str | None = None


@dataclass(frozen=True)
class Gpu:
    """A CUDA device: its name, and its memory in bytes, of which some is free where that can be told."""

    name: str
    memory: int
    free: int | None


@dataclass(frozen=True)
class Devices:
    """What there is to compute on.

    Attributes:
        cores: that this process may use.
        all_cores: of the machine.
        quota: cores' worth of time that a container allows; None without a limit.
        threads: of PyTorch in this process; None without PyTorch.
        built_for: the platform of GPUs that PyTorch was built for, such as ``CUDA 12.8``; None if for CPUs only.
        gpus: as PyTorch finds them.
        gpu_fault: why it finds none, in its words.
        hidden: what ``CUDA_VISIBLE_DEVICES`` says; None if it is not set.
        driver: NVIDIA's driver knows a device, whatever PyTorch finds.
        mps: PyTorch can use Apple's GPU.
    """

    cores: int
    all_cores: int
    quota: float | None
    threads: int | None
    built_for: str | None
    gpus: tuple[Gpu, ...]
    gpu_fault: str | None
    hidden: str | None
    driver: bool
    mps: bool


@dataclass(frozen=True)
class Disk:
    """A folder, absolute; bytes free on its disk; and why nothing can be written there, or None."""

    folder: str
    free: int
    fault: str | None


@dataclass(frozen=True)
class HubCache:
    """Where downloads from a hub are kept.

    Attributes:
        folder: of the cache.
        exists: false until the first download.
        repositories: models and data sets of which something is there.
        writable: the folder, or the one that it would be made in.
        offline: ``HF_HUB_OFFLINE`` forbids to download.
    """

    folder: str
    exists: bool
    repositories: int
    writable: bool
    offline: bool


@dataclass(frozen=True)
class Installation:
    """All of it: versions, devices, bytes of free memory (None where the system does not say), disk, the hub's
    cache (None without the hub's library)."""

    mergerisk: str
    python: str
    platform: str
    packages: tuple[Package, ...]
    extras: tuple[str, ...]
    devices: Devices
    memory: int | None
    disk: Disk
    hub: HubCache | None


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong, what to do, and whether no study can run until it is done."""

    what: str
    remedy: str
    stops: bool


def look(folder: Path, importing: Callable[[str], Any] = importlib.import_module) -> Installation:
    """Look at what is installed, and at the machine. Takes seconds: everything is imported once.

    Args:
        folder: where runs are going to be written.
        importing: gives the module of a name, or raises.

    Raises:
        UserError: no such folder, or mergerisk itself is not installed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one that exists, in which runs are going to be written")
    try:
        stated = metadata.requires("mergerisk") or []
        extras = metadata.metadata("mergerisk").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError as error:
        raise UserError(
            "mergerisk runs from files that are not installed; pip install . in their folder"
        ) from error
    offered = tuple(extra for extra in extras if extra not in _DEVELOPERS)
    tested, modules = _tested(), _modules()
    packages = [
        _package(needed, extra, tested, modules, importing)
        for extra in (None, *offered)
        for needed in _needed(stated, extra)
    ]
    return Installation(
        mergerisk=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=tuple(packages),
        extras=offered,
        devices=devices(_module("torch", importing)),
        memory=stated_memory(),
        disk=_disk(folder),
        hub=_hub(_module("huggingface_hub.constants", importing)),
    )


def devices(torch: Any | None) -> Devices:
    """What there is to compute on, as PyTorch finds it; no question to it that fails does any harm.

    Args:
        torch: the module; None if it cannot be imported.
    """
    gpus, fault = _gpus(torch)
    built_for, mps, threads = None, False, None
    if torch is not None:
        cuda, hip = getattr(torch.version, "cuda", None), getattr(torch.version, "hip", None)
        built_for = f"CUDA {cuda}" if cuda else f"ROCm {hip}" if hip else None
        threads = int(torch.get_num_threads())
        with suppress(Exception):  # not in every build
            mps = bool(torch.backends.mps.is_available())
    return Devices(
        cores=cores(),
        all_cores=os.cpu_count() or 1,
        quota=_quota(),
        threads=threads,
        built_for=built_for,
        gpus=gpus,
        gpu_fault=fault,
        hidden=os.environ.get("CUDA_VISIBLE_DEVICES"),
        driver=any(Path("/proc/driver/nvidia/gpus").glob("*")),
        mps=mps,
    )


def troubles(found: Installation) -> tuple[Trouble, ...]:
    """What is wrong, that which stops every study first."""
    wrong = [*_of_packages(found.packages), *_of_devices(found.devices), *_of_room(found)]
    return tuple(sorted(wrong, key=lambda trouble: not trouble.stops))


def _of_packages(packages: Iterable[Package]) -> Iterable[Trouble]:
    for package in packages:
        wanted, extra = f"{package.name}{package.needs}", package.extra
        install = f"pip install '{wanted}'" if extra is None else f"pip install 'mergerisk[{extra}]'"
        models = extra in _OF_MODELS
        whose = f", which models of {package.name} need" if models else f", which {extra} needs" if extra else ""
        if package.state == "missing" and extra is None:
            yield Trouble(f"{package.name} is not installed", install, stops=True)
        elif package.state == "unfit":
            what = f"{package.name} {package.installed} does not do{whose}: it must be {package.needs}"
            yield Trouble(what, f"{install} --upgrade", stops=extra is None)
        elif package.state == "broken":
            again = f"pip install --force-reinstall '{wanted}'"
            matching = f"install torch and torchvision that match, together from one index, then {install}"
            yield Trouble(
                f"{package.name} {package.installed} cannot be imported{whose}: {package.fault}",
                matching if models else again,
                stops=extra is None,
            )
        elif package.name == "torch" and package.installed and package.tested:
            installed, tested = Version(Version(package.installed).public), Version(package.tested)
            if installed != tested:
                age = "newer" if installed > tested else "older"
                what = f"torch {package.installed} is {age} than {tested}, which mergerisk is tested with"
                yield Trouble(f"{what}: last digits may differ", f"pip install 'torch=={tested}'", stops=False)


def _of_devices(found: Devices) -> Iterable[Trouble]:
    if found.built_for and not found.gpus:
        why = f" ({found.gpu_fault})" if found.gpu_fault else ""
        if found.hidden is not None:
            remedy = f"unset CUDA_VISIBLE_DEVICES, which is {found.hidden!r}"
        elif found.driver:
            remedy = "bring the driver and torch to versions that match, or give the container its devices"
        else:
            remedy = "install the GPU's driver, or give the container its devices; without a GPU nothing is amiss"
        what = f"torch is built for {found.built_for} and finds no device{why}: studies run on the CPU"
        yield Trouble(what, remedy, stops=False)
    if found.driver and found.threads is not None and not found.built_for:
        yield Trouble(
            "there is an NVIDIA device, and torch is built for CPUs only: studies run on the CPU",
            "install a torch that is built for CUDA, as pytorch.org says",
            stops=False,
        )
    for number, gpu in enumerate(found.gpus):
        if gpu.free is not None and gpu.free < _LITTLE_MEMORY:
            what = f"cuda:{number} has {gpu.free / 2**30:.1f} GiB free"
            yield Trouble(what, "end what else is on it, or use --device cpu", stops=False)


def _of_room(found: Installation) -> Iterable[Trouble]:
    memory, disk, hub = found.memory, found.disk, found.hub
    if memory is not None and memory < _LITTLE_MEMORY:
        stops = memory < _LEAST_MEMORY
        remedy = "free some, or allow more" if stops else "free some, or use fewer --workers: 1 takes least"
        yield Trouble(f"{memory / 2**30:.1f} GiB of memory free", remedy, stops=stops)
    if disk.fault is not None:
        yield Trouble(f"{disk.folder}: cannot be written to: {disk.fault}", "choose another folder", stops=True)
    if disk.free < _LITTLE_DISK:
        stops = disk.free < KEPT_FREE
        what = f"{disk.folder}: {mebibytes(disk.free)} free"
        yield Trouble(what, "free space, or choose another --out and --store", stops=stops)
    if hub is not None and not hub.writable:
        what = f"{hub.folder}: downloads from the hub cannot be kept there"
        yield Trouble(what, "set HF_HOME to a folder that can be written to", stops=False)


def _needed(stated: Iterable[str], extra: str | None) -> list[Requirement]:
    """What mergerisk needs, or an extra adds to it, of what its metadata state."""
    needed = []
    for requirement in map(Requirement, stated):
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        with_extra = extra is not None and marker is not None and marker.evaluate({"extra": extra})
        if always if extra is None else with_extra and not always:
            needed.append(requirement)
    return needed


def _package(
    needed: Requirement,
    extra: str | None,
    tested: Mapping[str, str],
    modules: Mapping[str, list[str]],
    importing: Callable[[str], Any],
) -> Package:
    name = canonicalize_name(needed.name)
    installed: str | None = None
    with suppress(metadata.PackageNotFoundError):
        installed = metadata.distribution(name).version
    state: State = "works"
    fault: str | None = None
    if installed is None:
        state = "missing"
    elif not needed.specifier.contains(installed, prereleases=True):
        state = "unfit"
    else:
        try:
            with _unheard():
                importing(_principal(name, modules.get(name, [])))
        except Exception as error:  # a compiled part fails with whatever it likes
            state, fault = "broken", described(error)
    return Package(needed.name, str(needed.specifier), extra, installed, tested.get(name), state, fault)


def _principal(name: str, modules: Iterable[str]) -> str:
    """The module that a distribution is imported by, of all that it installs."""
    own = name.replace("-", "_")
    public = sorted(module for module in modules if not module.startswith("_"))
    return own if own in public or not public else public[0]


def _modules() -> dict[str, list[str]]:
    """The modules of every distribution."""
    found: dict[str, list[str]] = {}
    for module, names in metadata.packages_distributions().items():
        for name in names:
            found.setdefault(canonicalize_name(name), []).append(module)
    return found


def _tested() -> dict[str, str]:
    """Versions that the suite is run with: they lie in the package, or beside the sources."""
    package = Path(__file__).resolve().parent
    for folder in (package, package.parents[1]):
        with suppress(OSError):
            lines = (folder / "constraints.txt").read_text(encoding="utf-8").splitlines()
            pinned = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
            return {canonicalize_name(name): version.strip() for name, version in pinned}
    return {}


def _module(name: str, importing: Callable[[str], Any]) -> Any | None:
    try:
        with _unheard():
            return importing(name)
    except Exception:  # said where its package was looked at
        return None


def _unheard() -> warnings.catch_warnings[None]:
    """A context in which libraries do not warn."""
    return warnings.catch_warnings(action="ignore")


def _gpus(torch: Any | None) -> tuple[tuple[Gpu, ...], str | None]:
    if torch is None:
        return (), None
    gpus = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
                about, free = torch.cuda.get_device_properties(number), None
                with suppress(Exception):  # somebody else may have it for themselves
                    free = int(torch.cuda.mem_get_info(number)[0])
                gpus.append(Gpu(str(about.name), int(about.total_memory), free))
        except Exception as error:
            return (), described(error)
    return tuple(gpus), shown_text(str(said[0].message)) if said and not gpus else None


def _quota() -> float | None:
    with suppress(OSError, ValueError):
        allowed, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return int(allowed) / int(period)
    return None


def _disk(folder: Path) -> Disk:
    folder, fault = folder.resolve(), None
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fault = error.strerror or described(error)
    return Disk(str(folder), shutil.disk_usage(folder).free, fault)


def _hub(constants: Any | None) -> HubCache | None:
    if constants is None:
        return None
    folder = Path(constants.HF_HUB_CACHE)
    held = [path for kind in ("models", "datasets") for path in folder.glob(f"{kind}--*")]
    standing = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    return HubCache(
        folder=str(folder),
        exists=folder.is_dir(),
        repositories=len(held),
        writable=standing.is_dir() and os.access(standing, os.W_OK),
        offline=bool(constants.HF_HUB_OFFLINE),
    )
