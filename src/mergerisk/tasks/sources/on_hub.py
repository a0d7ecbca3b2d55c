"""Datasets of the hub."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.tasks.hub_datasets import HUB_TASKS, PREFIX, fetch_dataset, hub_dataset, pinned
from mergerisk.tasks.layout import split_of
from mergerisk.tasks.options import HubOptions
from mergerisk.tasks.sources.parquet_files import ParquetSource
from mergerisk.tasks.splits import divide

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Self

    from mergerisk.tasks.hub_datasets import HubDataset
    from mergerisk.tasks.options import NamedOptions
    from mergerisk.tasks.splits import Division


@dataclass(frozen=True)
class HubSource(ParquetSource):
    """``hub:org/name``, or one of the names in :data:`mergerisk.tasks.hub_datasets.HUB_TASKS`."""

    options: HubOptions

    options_class: ClassVar[type[NamedOptions]] = HubOptions
    on_disk: ClassVar[bool] = False

    @classmethod
    def takes(cls, spec: str) -> bool:
        return spec in HUB_TASKS or spec.startswith(PREFIX)

    @property
    def dataset(self) -> HubDataset:
        """Which dataset is meant.

        Raises:
            UserError: it is not written ``hub:org/name``.
        """
        return hub_dataset(self.spec, self.options)

    @property
    def repository(self) -> str:
        return self.dataset.name

    def content(self) -> Mapping[str, Any]:
        # A commit decides its files; the configuration and the splits, which of them are read.
        commit = pinned(self.dataset, offline=self.options.offline)
        return {"hub": self.dataset.name, "commit": commit, "config": self.dataset.config}

    def pinned(self, identity: Mapping[str, Any]) -> Self:
        options = replace(self.options, config=identity["config"])
        return replace(self, spec=f"{PREFIX}{identity['hub']}@{identity['commit']}", options=options)

    def files(self) -> dict[str, Path]:
        return fetch_dataset(self.dataset, self.options)

    def divided(self, files: Iterable[str]) -> Division:
        return divide(map(split_of, files), self.options, self.spec)

    def offline(self) -> Self:
        return replace(self, options=replace(self.options, offline=True))

    def fetch(self) -> None:
        self.files()
