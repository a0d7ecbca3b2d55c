"""From what a person writes to a :class:`Task`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, did_you_mean
from mergerisk.hub_downloads import HUB_ID
from mergerisk.tasks.catalogue import kind_of
from mergerisk.tasks.class_names import one_form
from mergerisk.tasks.hub_datasets import HUB_TASKS, PREFIX, hub_dataset
from mergerisk.tasks.options import HubOptions, Limits
from mergerisk.tasks.starter import STARTER_TASKS
from mergerisk.validation import construct

if TYPE_CHECKING:
    from mergerisk.tasks.source import TaskSource
    from mergerisk.tasks.task import Task

SUITES = {"starter": STARTER_TASKS}
"""Suites of tasks by name."""

_ACCEPTED = "a folder of class folders, a .parquet or .npz file, or hub:org/name"


def task_source(spec: str, **options: Any) -> TaskSource:
    """A source from what a person writes; names come before paths (``./mnist`` is a folder).

    Args:
        spec: a starter task's name; the path of an ``.npz`` or Parquet file, or of a folder of images or of
            Parquet files; ``hub:org/name``; one of the names in
            :data:`mergerisk.tasks.hub_datasets.HUB_TASKS`; or what an installed package's kind takes.
        options: see :mod:`mergerisk.tasks.options`: ``name`` for every task; ``classes``, ``limit``, ``size`` and
            ``seed`` for every one made of files, and more for folders, Parquet files and the hub.

    Raises:
        UserError: neither a known name nor something that exists, or an option is unknown or out of range.
    """
    kind = kind_of(spec)
    if kind is None or (kind.on_disk and not Path(spec).exists()):
        raise _not_found(spec)
    if isinstance(options.get("limit"), dict):  # for a message that knows the splits' names
        options["limit"] = construct(Limits, options["limit"], f"task {spec!r}, limit")
    checked = construct(kind.options_class, options, f"task {spec!r}")
    return kind(task_name(spec, **options), spec, checked)


def _not_found(spec: str) -> UserError:
    """What is wrong with a spec that is of no kind, or points nowhere."""
    path = Path(spec)
    if path.exists():
        return UserError(f"task {spec!r}: not a task's file; give {_ACCEPTED}")
    if path.suffix or len(path.parts) > 1 or spec.startswith((".", "~")):
        on_hub = f"; a dataset of the hub is written {PREFIX}{spec}" if HUB_ID.fullmatch(spec) else ""
        return UserError(f"task {spec!r}: no such file{'' if path.suffix else ' or folder'}{on_hub}")
    near = did_you_mean(spec, [*STARTER_TASKS, *HUB_TASKS])
    return UserError(f"unknown task {spec!r}{near}; or give {_ACCEPTED}")


def task_name(spec: str, **options: Any) -> str:
    """What results call a task: told by the spec alone, since a finished run is read without the task's files, and
    without the package that adds its kind.

    Args:
        spec: see :func:`task_source`.
        options: see :func:`task_source`.

    Raises:
        UserError: an option of a dataset of the hub is unknown or out of range.
    """
    if options.get("name"):
        return one_form(str(options["name"]))
    if spec in STARTER_TASKS or spec in HUB_TASKS:
        return one_form(spec)
    if spec.startswith(PREFIX):
        checked = construct(HubOptions, options, f"task {spec!r}")
        return one_form(hub_dataset(spec, checked).name.partition("/")[2])
    path = Path(spec)
    file = path.suffix in {".npz", ".parquet"} and not path.is_dir()
    return one_form((path.stem if file else path.name) or path.resolve().name)


def load_task(spec: str, **options: Any) -> Task:
    """One task by what :func:`task_source` accepts, with its options."""
    return task_source(spec, **options).load()


def load_tasks(*specs: str) -> dict[str, Task]:
    """Tasks by name: a suite (``"starter"``), or whatever :func:`task_source` accepts.

    Returns:
        Task names to tasks, in the order given.

    Raises:
        UserError: an unknown name (the nearest is named), a broken file, or two tasks of one name.
    """
    sources = [task_source(spec) for given in specs for spec in SUITES.get(given, (given,))]
    tasks: dict[str, Task] = {}
    for source in sources:
        if source.name in tasks:
            raise UserError(f"task {source.name!r} is given twice; rename one of the files")
        tasks[source.name] = source.load()
    return tasks
