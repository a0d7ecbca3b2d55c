"""Relative paths in a study file, made relative to the file's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.models.on_disk.copies import split_copy, with_copy
from mergerisk.models.sources.hub import is_path
from mergerisk.plain_data import unfit_name
from mergerisk.tasks.hub_datasets import HUB_TASKS
from mergerisk.tasks.loading import SUITES
from mergerisk.tasks.starter import STARTER_TASKS

if TYPE_CHECKING:
    from collections.abc import Callable

_SUFFIXES = {".npz", ".parquet", ".safetensors"}


def with_paths(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The fields of a study with every path in them placed; what is malformed stays as it is."""

    def path(spec: Any) -> Any:
        return placed(folder, spec)

    def task(spec: Any) -> Any:
        if isinstance(spec, dict):
            return _at(spec, ["task"], task)
        named = isinstance(spec, str) and any(spec in names for names in (SUITES, STARTER_TASKS, HUB_TASKS))
        return spec if named else path(spec)

    def paths(mapping: Any) -> Any:
        return {name: path(spec) for name, spec in mapping.items()} if isinstance(mapping, dict) else mapping

    def each(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda values: [change(value) for value in values] if isinstance(values, list) else values

    changes: list[tuple[Callable[[Any], Any], list[str]]] = [
        (path, ["backbone"]),
        (paths, ["ingredients"]),
        (paths, ["experts", "files"]),
        (paths, ["heads", "files"]),
        (path, ["other_architecture", "backbone"]),
        (path, ["outsider", "file"]),
        (task, ["outsider", "task"]),
        (each(task), ["tasks"]),
        (each(lambda attack: _at(attack, ["file"], path)), ["attacks"]),
        (each(lambda target: _at(target, ["encoder"], path)), ["targets"]),
    ]
    for change, keys in changes:
        content = _at(content, keys, change)
    return content


def placed(folder: Path, spec: Any) -> Any:
    """A path below ``folder``, absolute; a name, of the hub say, as it is unless there is such a file."""
    if not isinstance(spec, str) or not spec or unfit_name(spec):
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


def _at(value: Any, keys: list[str], change: Callable[[Any], Any]) -> Any:
    """A mapping whose value under a path of keys is changed; anything else as it is."""
    if not keys:
        return change(value)
    if not isinstance(value, dict) or keys[0] not in value:
        return value
    return value | {keys[0]: _at(value[keys[0]], keys[1:], change)}


def without_places(value: Any) -> Any:
    """Plain data with the last part of every absolute path for the path: where things lie on somebody's machine is
    nobody's business, and what is published must not tell."""
    if isinstance(value, dict):
        return {key: without_places(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(part) for part in value]
    if isinstance(value, str) and "\n" not in value and (value.startswith("~") or Path(value).is_absolute()):
        return Path(value).name
    return value
