"""Parquet files in the layout of Hugging Face's datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.tasks.digests import file_digests
from mergerisk.tasks.layout import parquet_files, split_of
from mergerisk.tasks.listed import ListedSource
from mergerisk.tasks.options import ParquetOptions
from mergerisk.tasks.splits import divide

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.tasks.listing import Listing
    from mergerisk.tasks.options import NamedOptions
    from mergerisk.tasks.splits import Division


@dataclass(frozen=True)
class ParquetSource(ListedSource):
    """A Parquet file, or a folder of such."""

    options: ParquetOptions

    options_class: ClassVar[type[NamedOptions]] = ParquetOptions

    @classmethod
    def takes(cls, spec: str) -> bool:
        path = Path(spec)
        if path.suffix == ".parquet":
            return True
        return path.is_dir() and next(path.rglob("*.parquet"), None) is not None

    def files(self) -> dict[str, Path]:
        """The files of the data set, by name.

        Raises:
            UserError: there are none, or several configurations of which none is named.
        """
        return parquet_files(self.path, self.options.config)

    def divided(self, files: Iterable[str]) -> Division:
        """What the splits that files belong to are used for.

        Raises:
            UserError: that cannot be told.
        """
        return divide(map(split_of, files), self.options, self.spec, called=self.path.resolve().stem)

    def content(self) -> Mapping[str, Any]:
        files = self.files()
        codes = self.divided(files).codes
        used = {name: path for name, path in files.items() if split_of(name) in codes}
        self.choose(self.listing())  # what is at fault shows before anything is hashed
        digests = file_digests(used.values())
        said = [[name, used[name].stat().st_size, digest] for name, digest in zip(used, digests, strict=True)]
        return {"parquet": said}

    def listing(self) -> Listing:
        from mergerisk.tasks.parquet import list_parquet

        files = self.files()
        return list_parquet(files, self.divided(files), self.options, self.spec)
