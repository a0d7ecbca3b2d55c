"""What ``mergerisk doctor`` prints: a table of what there is, then what is wrong. It needs none of the libraries
that it speaks of."""

from __future__ import annotations

import json
from dataclasses import asdict
from textwrap import fill
from typing import TYPE_CHECKING

from mergerisk.provenance import RECORDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.installation import Devices, Gpu, HubCache, Installation, Package, Trouble

_WIDTH = 100
"""Columns of the longest sentence."""

_NOT_NEEDED = "Chromium, LaTeX, Node; a GPU where models are small; a network where models and images lie here"


def describe_installation(found: Installation, wrong: Sequence[Trouble]) -> str:
    """A table, a line for everything that is wrong, and whether a study can run."""
    needed = [package for package in found.packages if package.extra is None]
    shown = [package for package in needed if package.name in RECORDED or package.state != "works"]
    groups = [
        [
            ("mergerisk", found.mergerisk),
            ("Python", f"{found.python} on {found.platform}"),
            *((package.name, _version(package)) for package in shown),
            ("other libraries", f"{len(needed) - len(shown)}, all of which work"),
        ],
        [(f"extra {extra}", _extra(extra, found.packages)) for extra in found.extras],
        _devices(found.devices),
        [
            ("memory", "the system does not say" if found.memory is None else f"{_gib(found.memory)} free"),
            ("disk", f"{_gib(found.disk.free)} free in {found.disk.folder}"),
            ("the hub's cache", _hub(found.hub)),
            ("not needed", _NOT_NEEDED),
        ],
    ]
    width = max(len(title) for group in groups for title, _ in group)
    tables = ["\n".join(f"{title:{width}}  {text}" for title, text in group) for group in groups if group]
    lines = [f"{'stops a study' if one.stops else 'look at'}: {one.what}; {one.remedy}" for one in wrong]
    stopped = any(one.stops for one in wrong)
    lines.append("no study can run here" if stopped else "a study can run here: mergerisk run starter")
    said = [fill(line, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines]
    return "\n\n".join([*tables, "\n".join(said)])


def installation_to_json(found: Installation, wrong: Sequence[Trouble]) -> str:
    """The same as strict JSON, with every library."""
    document = {
        "can_run": not any(trouble.stops for trouble in wrong),
        "troubles": [asdict(trouble) for trouble in wrong],
        **asdict(found),
    }
    return json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1) + "\n"


def _version(package: Package) -> str:
    said = {
        "works": "",
        "missing": "not installed",
        "unfit": f", must be {package.needs}",
        "broken": ", cannot be imported",
    }
    return f"{package.installed or ''}{said[package.state]}"


def _extra(extra: str, packages: Sequence[Package]) -> str:
    own = [package for package in packages if package.extra == extra]
    if any(package.state == "missing" for package in own):
        return f"not installed: pip install 'mergerisk[{extra}]'"
    return ", ".join(f"{package.name} {_version(package)}" for package in own)


def _devices(found: Devices) -> list[tuple[str, str]]:
    cores = str(found.cores) if found.cores == found.all_cores else f"{found.cores} of {found.all_cores}"
    quota = "" if found.quota is None else f"; time of {found.quota:g} is allowed"
    absent = "PyTorch does not say" if found.threads is None else None
    threads = absent or f"{found.threads} for PyTorch here, one for each of a study's workers"
    none = absent or ("none" if found.built_for else "none: PyTorch is built for CPUs only")
    gpus = [(f"cuda:{number}", _gpu(gpu)) for number, gpu in enumerate(found.gpus)]
    return [
        ("CPU cores", f"{cores}{quota}"),
        ("threads", threads),
        *(gpus or [("CUDA devices", none)]),
        ("MPS", "yes" if found.mps else absent or "none"),
    ]


def _gpu(gpu: Gpu) -> str:
    free = "" if gpu.free is None else f", {_gib(gpu.free)} free"
    return f"{gpu.name}, {_gib(gpu.memory)}{free}"


def _hub(cache: HubCache | None) -> str:
    if cache is None:
        return "huggingface_hub is not there"
    held = f"models and data sets: {cache.repositories}" if cache.exists else "made by the first download"
    return f"{cache.folder}; {held}{'; offline by HF_HUB_OFFLINE' if cache.offline else ''}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
