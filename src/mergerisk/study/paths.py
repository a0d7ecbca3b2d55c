"""Relative paths in a study file, which start from the file's folder; absolute ones, which are not published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mergerisk.models.on_disk.copies import split_copy, with_copy
from mergerisk.models.sources.hub import is_path
from mergerisk.plain_data import unfit_name
from mergerisk.tasks.catalogue import kind_of
from mergerisk.tasks.hub_datasets import HUB_TASKS
from mergerisk.tasks.loading import SUITES
from mergerisk.tasks.starter import STARTER_TASKS

_BEFORE = re.compile(r"[\w.+-]+:([\w.]*@)?(?!//)")
"""What may stand before a path: ``package.module:factory@``, or the word by which a kind of task knows its own."""

_SUFFIXES = {".npz", ".parquet", ".safetensors"}


def placed(folder: Path, spec: str) -> str:
    """A path below ``folder``, absolute; a name, of the hub say, as it is unless there is such a file."""
    if not spec or unfit_name(spec):
        return spec
    if (folder / Path(spec).expanduser()).exists():
        source, prefix = spec, ""
    else:
        source, prefix = split_copy(spec)
    path = folder / Path(source).expanduser()
    name, at, file = spec.partition("@")
    if at and ":" in name and not path.exists():  # a factory, and its weights
        return f"{name}@{placed(folder, file)}"
    if path.exists() or (":" not in source and (is_path(source) or path.suffix in _SUFFIXES)):
        return with_copy(str(path.resolve()), prefix)
    return spec


def placed_task(folder: Path, spec: str) -> str:
    """The same of a task: names come before paths, and a kind of task knows of paths inside what it takes."""
    if any(spec in names for names in (SUITES, STARTER_TASKS, HUB_TASKS)):
        return spec
    found = placed(folder, spec)
    kind = kind_of(spec) if found == spec else None
    return found if kind is None else kind.placed(spec, folder)


def without_places(value: Any) -> Any:
    """Plain data with the last part of every absolute path for the path: where things lie on somebody's machine is
    nobody's business, and what is published must not tell."""
    if isinstance(value, dict):
        return {key: without_places(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(part) for part in value]
    if not isinstance(value, str) or "\n" in value:
        return value
    inside = _BEFORE.match(value)
    before, path = (inside.group(), value[inside.end() :]) if inside else ("", value)
    return before + Path(path).name if path.startswith("~") or Path(path).is_absolute() else value
