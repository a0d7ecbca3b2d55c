"""The contract of a kind of task: what is known of a data set before it is loaded, and how it is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.tasks.options import NamedOptions
from mergerisk.tasks.outline import Outline, Remarks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from mergerisk.tasks.arrays import TaskArrays
    from mergerisk.tasks.streaming import ImageStream
    from mergerisk.tasks.task import Task


@dataclass(frozen=True)
class TaskSource(ABC):
    """Where a task comes from, known before anything is loaded.

    A kind of task is one subclass and one entry in :data:`mergerisk.tasks.catalogue.TASK_KINDS`. One whose arrays
    come whole writes :meth:`takes`, :meth:`identity` and :meth:`arrays`; for images that are listed first and
    decoded one by one see :class:`mergerisk.tasks.listed.ListedSource`. A source goes to workers by pickle and is
    a key of mappings: it holds nothing but its fields. Its module imports nothing heavy; its methods may.

    Attributes:
        name: the task's name in results.
        spec: what a person wrote: a name, a path, or whatever :meth:`takes` accepts.
        options: what else was said of it, of the class :attr:`options_class`.
    """

    name: str
    spec: str
    options: NamedOptions

    options_class: ClassVar[type[NamedOptions]] = NamedOptions
    """What may be said of a task of this kind besides its spec."""
    on_disk: ClassVar[bool] = False
    """Whether a spec is the path of a file or folder, which must be there."""

    @classmethod
    @abstractmethod
    def takes(cls, spec: str) -> bool:
        """Whether a spec is one of this kind: by what it says, or by what lies where it points. Kinds are asked in
        the registry's order, those of installed packages after the package's own."""

    @classmethod
    def placed(cls, spec: str, folder: Path) -> str:
        """A spec with the path inside it made absolute, of a kind whose specs are more than a path
        (``lists:photos/all.txt``). A spec that is a path is made so before any kind is asked.

        Args:
            spec: of this kind.
            folder: where relative paths start: a study file's, say.
        """
        del folder
        return spec

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What the task's content depends on, as JSON: digests of files, a commit or a version, and the options
        that decide it. It tells what is kept from all else, so no other kind may say the same of other content.

        Raises:
            UserError: the source is not there, or its files, classes or splits are at fault.
        """

    @abstractmethod
    def arrays(self) -> TaskArrays:
        """Render, read or decode the task's arrays.

        Raises:
            UserError: the source cannot be read as a task.
        """

    def stream(self, threads: int | None = None) -> ImageStream | None:
        """The task's images, to be decoded a portion at a time; None if its arrays come whole.

        Args:
            threads: that decode; one per core by default.

        Raises:
            UserError: the source is not there, or its files, classes or splits are at fault.
        """
        del threads
        return None

    def check(self) -> Outline:
        """See that the task can be made, as far as that shows without decoding images.

        Raises:
            UserError: it cannot.
        """
        import numpy as np

        from mergerisk.tasks.from_arrays import to_task

        arrays = self.arrays()
        task = to_task(self.name, arrays)
        sizes = len(task.train), len(task.calibration), len(task.test)
        stored = int(np.asarray(arrays.images).nbytes)
        image = int(task.test.images[0].nbytes)
        return Outline(task.class_names, *sizes, image, stored, Remarks(task.remarks))

    def remarks(self) -> Remarks:
        """What must be said of the task, as far as that is known without a download.

        Raises:
            UserError: the source is not there, or its files, classes or splits are at fault.
        """
        return Remarks(self.load().remarks)

    def load(self) -> Task:
        """The task itself.

        Raises:
            UserError: the source is not a valid task.
        """
        from mergerisk.tasks.from_arrays import to_task

        return to_task(self.name, self.arrays())

    @property
    def path(self) -> Path:
        """The file or folder, of a kind that is :attr:`on_disk`."""
        return Path(self.spec)

    @property
    def repository(self) -> str:
        """What is downloaded of the hub, as ``org/name``; empty for what is on this machine. A kind that says one
        has an option ``offline``, and a ``commit`` in its identity."""
        return ""

    def pinned(self, identity: Mapping[str, Any]) -> Self:
        """The same source, as it was when it had this identity, should what it names have moved since."""
        del identity
        return self

    def offline(self) -> Self:
        """The same source, of which nothing is downloaded."""
        return self

    def fetch(self) -> None:  # noqa: B027  # most have nothing to fetch
        """Download what is not on this machine yet.

        Raises:
            UserError: that cannot be done; if there is no connection, or may be none, an
                :class:`~mergerisk.hub_downloads.UnavailableError`.
        """
