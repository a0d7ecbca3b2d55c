"""Kinds of tasks whose images are listed before any is decoded."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.hub_downloads import UnavailableError
from mergerisk.tasks.options import FileOptions, FolderOptions
from mergerisk.tasks.outline import Outline, Remarks
from mergerisk.tasks.source import TaskSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.tasks.arrays import TaskArrays
    from mergerisk.tasks.listing import Chosen, Listing
    from mergerisk.tasks.options import NamedOptions
    from mergerisk.tasks.streaming import ImageStream

_DECODED_WITH = "pillow"
"""The distribution whose version can change a decoded pixel."""


@dataclass(frozen=True)
class ListedSource(TaskSource):
    """A source that lists its images: classes, limits, held-out images and sizes are settled here, once for all
    kinds, and images are decoded a portion at a time.

    A kind writes :meth:`takes`, :meth:`content` and :meth:`listing`. Its options are :class:`FileOptions`, or
    :class:`FolderOptions` where images may be listed without a split.
    """

    options: FileOptions

    options_class: ClassVar[type[NamedOptions]] = FileOptions
    on_disk: ClassVar[bool] = True

    @abstractmethod
    def content(self) -> Mapping[str, Any]:
        """What the listed images depend on, but for the options: digests of files, a commit. See :meth:`identity`.

        Raises:
            UserError: the source is not there, or its files, classes or splits are at fault.
        """

    @abstractmethod
    def listing(self) -> Listing | None:
        """The images, none of which is decoded yet; None if they come whole, as :meth:`arrays` then gives them.

        Raises:
            UserError: the source is not there, or its files, classes or splits are at fault.
        """

    def identity(self) -> Mapping[str, Any]:
        return {
            **self.content(),
            "options": self.options.content(),
            "decoded_with": {_DECODED_WITH: metadata.version(_DECODED_WITH)},
        }

    def choose(self, listing: Listing) -> Chosen:
        """Which of the listed images the task takes.

        Raises:
            UserError: an unknown class, a class without images, or no test images.
        """
        from mergerisk.tasks.listing import choose

        options = self.options
        return choose(listing, options, options.test_share if isinstance(options, FolderOptions) else None)

    def stream(self, threads: int | None = None) -> ImageStream | None:
        from mergerisk.tasks.streaming import ImageStream

        listing = self.listing()
        return None if listing is None else ImageStream(self.choose(listing), self.options.size, threads)

    def arrays(self) -> TaskArrays:
        stream = self.stream()
        assert stream is not None, "a kind whose arrays come whole reads them itself"
        return stream.collect()

    def check(self) -> Outline:
        from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN
        from mergerisk.tasks.streaming import ImageStream

        listing = self.listing()
        if listing is None:
            return super().check()
        chosen = self.choose(listing)
        stream = ImageStream(chosen, self.options.size)
        height, width = stream.size
        train, calibration, test = (int((chosen.split == code).sum()) for code in (TRAIN, CALIBRATION, TEST))
        image = height * width * 3 * 4
        return Outline(chosen.class_names, train, calibration, test, image, stream.bytes, _remarks_of(chosen))

    def remarks(self) -> Remarks:
        try:
            listing = self.offline().listing()
        except UnavailableError:
            return Remarks()
        return super().remarks() if listing is None else _remarks_of(self.choose(listing))


def _remarks_of(chosen: Chosen) -> Remarks:
    return Remarks(chosen.remarks, chosen.listing.trained_on)
