"""Kinds of tasks by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.registry import Entry, Registry, plugins

if TYPE_CHECKING:
    from mergerisk.tasks.source import TaskSource

_KINDS = "mergerisk.tasks.sources"

TASK_KINDS: Registry[type[TaskSource]] = Registry(
    "kind of task",
    "mergerisk.tasks",
    [
        # In the order in which they are asked: names come before paths, and a folder of Parquet files is one.
        Entry("starter", f"{_KINDS}.rendered:StarterSource", "rendered tasks that ship with the package"),
        Entry("hub", f"{_KINDS}.on_hub:HubSource", "datasets of the hub in Parquet files"),
        Entry("npz", f"{_KINDS}.npz_file:NpzSource", "arrays in an .npz file"),
        Entry("parquet", f"{_KINDS}.parquet_files:ParquetSource", "Parquet files, or a folder of them"),
        Entry("folder", f"{_KINDS}.class_folders:FolderSource", "one folder of images per class"),
    ],
)
"""Kinds of :class:`~mergerisk.tasks.source.TaskSource`; plugins add to it."""


def kind_of(spec: str) -> type[TaskSource] | None:
    """The first kind that takes a spec; None if none does. What others add is imported only for a spec that none
    of the package's own kinds takes.

    Raises:
        UserError: a package that might take it cannot be imported.
    """
    return next((kind for kind in map(TASK_KINDS.load, TASK_KINDS.names()) if kind.takes(spec)), None)


def plugins_of(source: TaskSource) -> tuple[str, ...]:
    """Name and version of the installed package that reads a task; empty if none is needed."""
    return plugins(TASK_KINDS.check(TASK_KINDS.name_of(type(source))))
