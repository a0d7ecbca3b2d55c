"""From listed images to bytes, a portion at a time: no task is ever whole in memory."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.errors import UserError
from mergerisk.row_files import RowFile, write_rows
from mergerisk.tasks.arrays import Skipped, TaskArrays
from mergerisk.tasks.decoding import (
    PORTION,
    TASK_FORMATS,
    UnreadableError,
    decode,
    in_threads,
    quiet,
    upright_size,
)
from mergerisk.threads import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from mergerisk.tasks.arrays import Rows
    from mergerisk.tasks.decoding import Encoded
    from mergerisk.tasks.listing import Chosen

_SIDE = 224
"""Of images that have no common size of their own: what CLIP's backbones see."""

_PORTION_BYTES = 2**26
"""Of the decoded images that are in memory at once, or of one per thread."""

_IN_MEMORY = 2**28
"""Bytes of a task that is not kept in a temporary file."""

_NO_IMAGE = "no image in the row"


class ImageStream:
    """The images a task takes, decoded in order. To be passed through once; then :meth:`arrays` tells the rest.

    Args:
        chosen: which images.
        side: of the square to bring them to; None for their own size if all have one, else 224.
        threads: that decode; one per core by default. No result depends on it.
    """

    def __init__(self, chosen: Chosen, side: int | None, threads: int | None = None) -> None:
        self._chosen = chosen
        self._threads = threads
        common = None if side is not None else self._common_size()
        self._own = common is not None
        self.size = common or (side or _SIDE,) * 2
        """Height and width of every image."""
        self._readable: list[bool] = []
        self._skipped: list[Skipped] = []

    @property
    def bytes(self) -> int:
        """What the images take, if all can be read."""
        return len(self._chosen.positions) * self.size[0] * self.size[1] * 3

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Portions of the images that can be read, n × H × W × 3.

        Raises:
            UserError: an image is too large, a file cannot be read, or a class has no image that can.
        """
        height, width = self.size
        fitting = max(self._threads or cores(), min(PORTION, _PORTION_BYTES // (3 * height * width)))
        for portion in in_threads(self._decode, self._chosen.read(), self._threads, fitting):
            images = [item for item in portion if not isinstance(item, Skipped)]
            self._readable += [not isinstance(item, Skipped) for item in portion]
            self._skipped += [item for item in portion if isinstance(item, Skipped)]
            if images:
                yield np.stack(images)
        self._check()

    def arrays(self, images: Rows | None) -> TaskArrays:
        """The task, given where its images went; None if the caller knows."""
        chosen, readable = self._chosen, np.array(self._readable)
        return TaskArrays(
            np.empty((0, *self.size, 3), np.uint8) if images is None else images,
            chosen.labels[readable],
            chosen.split[readable],
            chosen.class_names,
            held_out=True,
            skipped=(*chosen.listing.skipped, *self._skipped),
            remarks=chosen.remarks,
        )

    def collect(self) -> TaskArrays:
        """The task with its images in memory, or, where they are many, in a temporary file without a name."""
        if self.bytes <= _IN_MEMORY:
            return self.arrays(np.concatenate(list(self)))
        with tempfile.TemporaryFile() as file:
            try:
                written = write_rows(file, self)
                file.flush()
            except OSError as error:
                raise UserError(f"{tempfile.gettempdir()}: cannot be written to: {error.strerror}") from error
            return self.arrays(RowFile(os.dup(file.fileno()), written.shape, written.dtype))

    def _decode(self, item: tuple[str, Encoded | None]) -> NDArray[np.uint8] | Skipped:
        name, encoded = item
        if encoded is None:
            return Skipped(name, _NO_IMAGE)
        try:
            return decode(encoded, self._called(name), size=self.size if self._own else None, side=self.size[0])
        except UnreadableError as error:
            return Skipped(name, str(error))

    def _common_size(self) -> tuple[int, int] | None:
        """The one size of all images that can be read; None if they have several."""
        sizes: list[tuple[int, int] | None] = []
        for portion in in_threads(self._size, self._chosen.read(), self._threads):
            sizes += portion
        members = defaultdict(list)
        for place, size in enumerate(sizes):
            if size is not None:
                members[size].append(place)
        if len(members) < 2:
            return next(iter(members), None)
        # A header tells the size of an image that cannot be read too, and such a one counts for nothing.
        readable = (
            size for size in sorted(members, key=lambda size: len(members[size])) if self._any(members[size])
        )
        found = next(readable, None)
        return found if next(readable, None) is None else None

    def _any(self, places: Sequence[int]) -> bool:
        """Whether one of the images can be read."""
        positions = self._chosen.positions[places]
        names = map(self._chosen.listing.name, positions.tolist())
        items = zip(names, self._chosen.listing.read(positions), strict=True)
        with quiet():  # one after the other: as a rule the first will do
            return any(map(self._readable_at_all, items))

    def _readable_at_all(self, item: tuple[str, Encoded | None]) -> bool:
        name, encoded = item
        try:
            return encoded is not None and decode(encoded, self._called(name), size=None, side=1).size > 0
        except UnreadableError:
            return False

    def _size(self, item: tuple[str, Encoded | None]) -> tuple[int, int] | None:
        name, encoded = item
        try:
            return None if encoded is None else upright_size(encoded, self._called(name), TASK_FORMATS)
        except UnreadableError:
            return None

    def _called(self, name: str) -> str:
        return f"{self._chosen.listing.where}: {name}"

    def _check(self) -> None:
        chosen, readable = self._chosen, np.array(self._readable)
        lost = chosen.whole - set(np.unique(chosen.labels[readable]).tolist())
        if lost or not readable.any():
            first = self._skipped[0]
            what = f"class {chosen.class_names[min(lost)]!r} has no" if lost else "no"
            raise UserError(f"{chosen.listing.where}: {what} image that can be read; {first.name}: {first.reason}")
