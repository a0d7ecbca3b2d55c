"""A kind of task that mergerisk does not know of."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk import UserError
from mergerisk.tasks import ListedSource
from mergerisk.tasks.digests import chosen_digest
from mergerisk.tasks.options import FileOptions, NamedOptions
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from mergerisk.tasks.listing import Listing


@hyperparameters
class CsvOptions(FileOptions):
    """Options of a list of images.

    Attributes:
        label: the column of class names.
    """

    label: str = "label"


@dataclass(frozen=True)
class CsvSource(ListedSource):
    """A ``.csv`` file with the columns ``file``, ``split`` (train, test or calibration) and one of class names; files
    lie beside it."""

    options: CsvOptions

    options_class: ClassVar[type[NamedOptions]] = CsvOptions

    @classmethod
    def takes(cls, spec: str) -> bool:
        return Path(spec).suffix == ".csv"

    def content(self) -> Mapping[str, Any]:
        listing = self.listing()
        return {
            "csv": chosen_digest(self.choose(listing), self.path.parent),
            "class_names": list(listing.class_names),
        }

    def listing(self) -> Listing:
        import numpy as np

        from mergerisk.tasks.listing import SPLITS, Listing

        with self.path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        lacking = {"file", "split", self.options.label} - set(rows[0] if rows else ())
        if lacking:
            raise UserError(
                f"{self.spec}: no column {min(lacking)!r}; say file, split and the class of every image"
            )
        labels = [row[self.options.label] for row in rows]
        names = tuple(sorted(set(labels)))
        files = [row["file"] for row in rows]

        def read(positions: NDArray[np.int64]) -> Iterator[Path]:
            return (self.path.parent / files[position] for position in positions.tolist())

        return Listing(
            self.spec,
            names,
            np.array([names.index(label) for label in labels]),
            np.array([SPLITS[row["split"]] for row in rows]),
            files.__getitem__,
            read,
        )
