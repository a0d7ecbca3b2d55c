"""From what a person writes to a :class:`Task`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.errors import UserError, did_you_mean
from mergerisk.hub_downloads import HUB_ID, UnavailableError
from mergerisk.tasks.class_names import one_form
from mergerisk.tasks.hub_datasets import HUB_TASKS, fetch_dataset, hub_dataset, pinned
from mergerisk.tasks.layout import parquet_files, split_of
from mergerisk.tasks.options import FileOptions, FolderOptions, HubOptions, Limits, NamedOptions, ParquetOptions
from mergerisk.tasks.outline import Outline, Remarks
from mergerisk.tasks.splits import divide
from mergerisk.tasks.starter import STARTER_TASKS, STARTER_VERSION
from mergerisk.validation import construct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.tasks.arrays import TaskArrays
    from mergerisk.tasks.listing import Chosen, Listing
    from mergerisk.tasks.splits import Division
    from mergerisk.tasks.streaming import ImageStream
    from mergerisk.tasks.task import Task

SUITES = {"starter": STARTER_TASKS}
"""Suites of tasks by name."""

_RENDERED_WITH = ("numpy", "pillow", "matplotlib", "scikit-learn")
"""The distributions whose versions can change a rendered pixel."""

_DECODED_WITH = "pillow"
"""The distribution whose version can change a decoded one."""

_ACCEPTED = "a folder of class folders, a .parquet or .npz file, or hub:org/name"


@dataclass(frozen=True)
class TaskSource:
    """Where a task comes from, known before anything is loaded.

    Attributes:
        name: the task's name in results.
        spec: a starter task's name; the path of an ``.npz`` or Parquet file, or of a folder of images or of
            Parquet files; ``hub:org/name``; or one of the names in
            :data:`mergerisk.tasks.hub_datasets.HUB_TASKS`.
        options: what else was said of it.
    """

    name: str
    spec: str
    options: NamedOptions = field(default_factory=NamedOptions)

    def __post_init__(self) -> None:
        if type(self.options) is NamedOptions:
            object.__setattr__(self, "options", _OPTIONS[self.kind](name=self.options.name))

    @property
    def kind(self) -> str:
        """``starter``, ``hub``, ``npz``, ``parquet`` or ``folder``."""
        return _kind(self.spec)

    @property
    def path(self) -> Path | None:
        return None if self.kind in {"starter", "hub"} else Path(self.spec)

    def identity(self) -> dict[str, Any]:
        """What the task's content depends on: digests of files, a commit, or a renderer, and options.

        Raises:
            UserError: the source is not there, or its files, classes or splits are at fault.
        """
        match self.kind:
            case "starter":
                versions = {name: metadata.version(name) for name in _RENDERED_WITH}
                return {"starter": self.spec, "version": STARTER_VERSION, "rendered_with": versions}
            case "npz":
                said = self.options.content()
                return {"sha256": file_digest(Path(self.spec))} | ({"options": said} if said else {})
        made = {
            "options": self.options.content(),
            "decoded_with": {_DECODED_WITH: metadata.version(_DECODED_WITH)},
        }
        if self.kind == "hub":
            options = self._hub_options()
            dataset = hub_dataset(self.spec, options)
            commit = pinned(dataset, offline=options.offline)
            # A commit decides its files; the configuration and the splits, which of them are read.
            return {"hub": dataset.name, "commit": commit, "config": dataset.config} | made
        if self.kind == "parquet":
            return {"parquet": self._parquet_digests()} | made
        return {"folder": _chosen_digest(self._choose(), Path(self.spec))} | made

    def pinned(self, identity: Mapping[str, Any]) -> TaskSource:
        """The same source, at the commit that ``identity`` names, should a branch have moved since."""
        if "commit" not in identity:
            return self
        options = replace(self._hub_options(), config=identity["config"])
        return TaskSource(self.name, f"hub:{identity['hub']}@{identity['commit']}", options)

    @property
    def repository(self) -> str:
        """``org/name`` of a dataset of the hub."""
        return hub_dataset(self.spec, self._hub_options()).name

    def offline(self) -> TaskSource:
        """The same dataset of the hub, of which nothing is downloaded."""
        return replace(self, options=replace(self._hub_options(), offline=True))

    def fetch(self) -> None:
        """Download what the cache lacks of a dataset of the hub.

        Raises:
            UserError: that cannot be done; if the hub cannot be reached, or may not be, an
                :class:`~mergerisk.hub_downloads.UnavailableError`.
        """
        options = self._hub_options()
        fetch_dataset(hub_dataset(self.spec, options), options)

    def check(self) -> Outline:
        """See that the task can be made, as far as that shows without decoding images.

        Raises:
            UserError: it cannot.
        """
        if self.kind == "starter":
            from mergerisk.tasks.starter import class_names, split_sizes

            sizes, pixels = split_sizes(self.spec), 32 * 32 * 3
            return Outline(class_names(self.spec), *sizes, 4 * pixels, sum(sizes) * pixels)
        if self._is_whole():
            import numpy as np

            from mergerisk.tasks.converting import to_task

            arrays = self.arrays()
            task = to_task(self.name, arrays)
            sizes = len(task.train), len(task.calibration), len(task.test)
            stored = int(np.asarray(arrays.images).nbytes)
            image = int(task.test.images[0].nbytes)
            return Outline(task.class_names, *sizes, image, stored, Remarks(task.remarks))
        from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN
        from mergerisk.tasks.streaming import ImageStream

        options = self._file_options()
        chosen = self._choose()
        stream = ImageStream(chosen, options.size)
        height, width = stream.size
        train, calibration, test = (int((chosen.split == code).sum()) for code in (TRAIN, CALIBRATION, TEST))
        image = height * width * 3 * 4
        return Outline(chosen.class_names, train, calibration, test, image, stream.bytes, _remarks_of(chosen))

    def remarks(self) -> Remarks:
        """What must be said of the task, as far as that is known without a download.

        Raises:
            UserError: the source is not there, or its files, classes or splits are at fault.
        """
        if self.kind == "starter":
            return Remarks()
        if self._is_whole():
            return Remarks(self.load().remarks)
        try:
            return _remarks_of((self.offline() if self.kind == "hub" else self)._choose())
        except UnavailableError:
            return Remarks()

    def arrays(self) -> TaskArrays:
        """Render, read or decode the task's arrays.

        Raises:
            UserError: the source cannot be read as a task.
        """
        if self.kind == "starter":
            from mergerisk.tasks.starter import render

            return render(self.spec)
        if self._is_whole():
            from mergerisk.tasks.npz import read_npz

            return read_npz(Path(self.spec))
        return self.stream().collect()

    def stream(self, threads: int | None = None) -> ImageStream:
        """The task's images, to be decoded a portion at a time.

        Args:
            threads: that decode; one per core by default.

        Raises:
            UserError: the source is not there, or its files, classes or splits are at fault; or its arrays come
                whole (starter tasks and ``.npz`` files without options).
        """
        from mergerisk.tasks.streaming import ImageStream

        if self._is_whole():
            raise UserError(f"task {self.name!r}: its arrays come whole, not image by image")
        return ImageStream(self._choose(), self._file_options().size, threads)

    def load(self) -> Task:
        """The task itself.

        Raises:
            UserError: the source is not a valid task.
        """
        from mergerisk.tasks.converting import to_task

        return to_task(self.name, self.arrays())

    def streams(self) -> bool:
        """Whether the task is made of images that are decoded one by one; see :meth:`stream`."""
        return not self._is_whole()

    def _is_whole(self) -> bool:
        return self.kind == "starter" or (self.kind == "npz" and not self.options.content())

    def _hub_options(self) -> HubOptions:
        assert isinstance(self.options, HubOptions)
        return self.options

    def _file_options(self) -> FileOptions:
        assert isinstance(self.options, FileOptions)
        return self.options

    def _choose(self) -> Chosen:
        from mergerisk.tasks.listing import choose

        options = self._file_options()
        share = options.test_share if isinstance(options, FolderOptions) else None
        return choose(self._list(options), options, share)

    def _list(self, options: FileOptions) -> Listing:
        if self.kind == "npz":
            from mergerisk.tasks.npz import list_npz

            return list_npz(Path(self.spec))
        if self.kind == "folder":
            from mergerisk.tasks.folders import list_folder

            assert isinstance(options, FolderOptions)
            return list_folder(Path(self.spec), options)
        from mergerisk.tasks.parquet import list_parquet

        assert isinstance(options, ParquetOptions)
        return list_parquet(*self._parquet(options), options, self.spec)

    def _parquet(self, options: ParquetOptions) -> tuple[dict[str, Path], Division]:
        """The files of the data set, by name, and what their splits are used for."""
        if isinstance(options, HubOptions):
            files, called = fetch_dataset(hub_dataset(self.spec, options), options), ""
        else:
            files, called = parquet_files(Path(self.spec), options.config), Path(self.spec).resolve().stem
        return files, divide(map(split_of, files), options, self.spec, called=called)

    def _parquet_digests(self) -> list[list[Any]]:
        from mergerisk.tasks.decoding import in_threads

        assert isinstance(self.options, ParquetOptions)
        files, division = self._parquet(self.options)
        used = {name: path for name, path in files.items() if split_of(name) in division.codes}
        self._choose()  # what is at fault shows before anything is hashed
        digests = [digest for portion in in_threads(file_digest, used.values()) for digest in portion]
        return [[name, used[name].stat().st_size, digest] for name, digest in zip(used, digests, strict=True)]


def _remarks_of(chosen: Chosen) -> Remarks:
    return Remarks(chosen.remarks, chosen.listing.trained_on)


def _chosen_digest(chosen: Chosen, folder: Path) -> str:
    """One SHA-256 of the classes and of every chosen file's split, label, name, size and SHA-256."""
    from mergerisk.tasks.decoding import in_threads

    def line(item: tuple[int, int, str]) -> str:
        path = folder / item[2]
        digest = file_digest(path)
        return json.dumps([*item, path.stat().st_size, digest])

    names = [chosen.listing.name(position) for position in chosen.positions.tolist()]
    digest = hashlib.sha256(json.dumps(len(chosen.class_names)).encode())
    for portion in in_threads(line, zip(chosen.split.tolist(), chosen.labels.tolist(), names, strict=True)):
        for text in portion:
            digest.update(f"{text}\n".encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _kind(spec: str) -> str:
    if spec in STARTER_TASKS:
        return "starter"
    if spec in HUB_TASKS or spec.startswith("hub:"):
        return "hub"
    path = Path(spec)
    if path.suffix in {".npz", ".parquet"}:
        return path.suffix[1:]
    holds_parquet = path.is_dir() and next(path.rglob("*.parquet"), None) is not None
    return "parquet" if holds_parquet else "folder"


_OPTIONS: dict[str, type[NamedOptions]] = {
    "starter": NamedOptions,
    "npz": FileOptions,
    "folder": FolderOptions,
    "parquet": ParquetOptions,
    "hub": HubOptions,
}


def task_source(spec: str, **options: Any) -> TaskSource:
    """A source from what a person writes; names come before paths (``./mnist`` is a folder).

    Args:
        spec: see :class:`TaskSource`.
        options: see :mod:`mergerisk.tasks.options`: ``name`` for every task; ``classes``, ``limit``, ``size`` and
            ``seed`` for every one made of files, and more for folders, Parquet files and the hub.

    Raises:
        UserError: neither a known name nor something that exists, or an option is unknown or out of range.
    """
    kind = _kind(spec)
    path = Path(spec)
    if kind not in {"starter", "hub"} and not path.exists():
        if kind == "npz" or path.suffix or len(path.parts) > 1 or spec.startswith((".", "~")):
            on_hub = f"; a dataset of the hub is written hub:{spec}" if HUB_ID.fullmatch(spec) else ""
            raise UserError(f"task {spec!r}: no such file{'' if path.suffix else ' or folder'}{on_hub}")
        near = did_you_mean(spec, [*STARTER_TASKS, *HUB_TASKS])
        raise UserError(f"unknown task {spec!r}{near}; or give {_ACCEPTED}")
    if kind == "folder" and path.is_file():
        raise UserError(f"task {spec!r}: not a task's file; give {_ACCEPTED}")
    if isinstance(options.get("limit"), dict):  # for a message that knows the splits' names
        options["limit"] = construct(Limits, options["limit"], f"task {spec!r}, limit")
    checked = construct(_OPTIONS[kind], options, f"task {spec!r}")
    return TaskSource(task_name(spec, **options), spec, checked)


def task_name(spec: str, **options: Any) -> str:
    """What results call a task, whether its files are there or not.

    Args:
        spec: see :class:`TaskSource`.
        options: see :func:`task_source`.

    Raises:
        UserError: an option of a dataset of the hub is unknown or out of range.
    """
    if options.get("name"):
        return one_form(str(options["name"]))
    if spec in STARTER_TASKS or spec in HUB_TASKS:
        return one_form(spec)
    if spec.startswith("hub:"):
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
