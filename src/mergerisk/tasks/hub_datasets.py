"""Datasets of a hub: the eight tasks of the merging literature, pinned, and any other by its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.hub_downloads import COMMIT, HUB_ID, cached_folder, download, find_commit
from mergerisk.tasks.layout import lacking_shards, of_config, split_of
from mergerisk.tasks.splits import divide, kinds_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mergerisk.tasks.options import HubOptions

PREFIX = "hub:"
"""Before ``org/name`` or ``org/name@revision`` in a task's spec."""


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub.

    Attributes:
        name: ``org/name``.
        revision: branch, tag or commit; None for ``main``. A commit may be shortened.
        config: which of its configurations; None where it has one.
    """

    name: str
    revision: str | None = None
    config: str | None = None


_PINNED = MappingProxyType(
    {
        # The last commits of main, which convert to Parquet, as the hub's listings and public code name them;
        # docs/hub.md has the sources. None was downloaded when this table was made.
        "sun397": HubDataset("tanganke/sun397", "9c4afd6174afa3974f209a0ef099dbbe244dfd27"),
        "cars": HubDataset("tanganke/stanford_cars", "9abf6cf7d6dfa7b95152a0d6e791ea9435b47a40"),
        "resisc45": HubDataset("tanganke/resisc45", "5c484982a196dcb501b8e79c6cf4680dc6f2ccdf"),
        "eurosat": HubDataset("tanganke/eurosat", "43750fc422c7fbd4289e2df3f7473617a5937acc"),
        "svhn": HubDataset("ufldl-stanford/svhn", "f9e1717d73324ebbc1ece84267ccd80d0aca0690", "cropped_digits"),
        "gtsrb": HubDataset("tanganke/gtsrb", "ea889fff70dda7b09e94a4b207dded438deca549"),
        "mnist": HubDataset("ylecun/mnist", "77f3279092a1c1579b2250db8eafed0ad422088c", "mnist"),
        "dtd": HubDataset("tanganke/dtd", "d2afa97d9f335b1a6b3b09c637aef667f98f966e"),
    }
)

HUB_TASKS: Mapping[str, HubDataset] = _PINNED
"""The eight tasks on which merging methods are compared (Ilharco et al. 2023, arXiv 2212.04089), as FusionBench
(Tang et al. 2024, arXiv 2406.03280) takes them. All have the splits ``train`` and ``test``, an ``image`` and a
``label``."""


def hub_dataset(spec: str, options: HubOptions) -> HubDataset:
    """The dataset that a task's spec names.

    Raises:
        UserError: it is not written ``hub:org/name``.
    """
    if spec in HUB_TASKS:
        dataset = HUB_TASKS[spec]
    else:
        name, _, revision = spec.removeprefix(PREFIX).partition("@")
        if not HUB_ID.fullmatch(name):
            raise UserError(
                f"task {spec!r}: a dataset of the hub is written hub:org/name or hub:org/name@revision"
            )
        dataset = HubDataset(name, revision or None)
    return dataset if options.config is None else replace(dataset, config=options.config)


def pinned(dataset: HubDataset, *, offline: bool, endpoint: str | None = None, cache: Path | None = None) -> str:
    """The commit of a dataset; one that the table or the user gave in full is not asked for.

    Raises:
        UserError: it cannot be found out.
    """
    try:
        return find_commit(
            dataset.name, dataset.revision, kind="dataset", offline=offline, endpoint=endpoint, cache=cache
        )
    except UserError as error:
        raise type(error)(f"dataset {error}") from error


def fetch_dataset(
    dataset: HubDataset, options: HubOptions, *, endpoint: str | None = None, cache: Path | None = None
) -> dict[str, Path]:
    """The Parquet files of the splits that a task uses: name in the repository → file, downloaded if need be.

    Raises:
        UserError: no such dataset, revision, configuration or split; no Parquet files; no connection and not
            in the cache.
    """
    where = f"{dataset.name}@{dataset.revision}" if dataset.revision else dataset.name

    def choose(files: Iterable[str]) -> list[str]:
        inside = _of_config(files, dataset.config, where)
        codes = divide(map(split_of, inside), options, where).codes
        return [file for file in inside if split_of(file) in codes]

    def lacking(folder: Path | None) -> str | None:
        about = f"config {dataset.config}, " if dataset.config else ""
        wanted = " and ".join(filter(None, (options.train_split or "train", options.test_split or "test")))
        if folder is None:
            return f"{about}splits {wanted}"
        try:
            there = choose(_inside(folder))
        except UserError:
            return f"{about}splits {wanted}"
        missing = lacking_shards(there)
        # Offline nothing tells which splits there are besides those asked for.
        kinds = kinds_of(set(map(split_of, there)))
        absent = [kind for kind in ("train", "test") if kind not in kinds.values()]
        if options.test_split is None and options.train_split is None and absent:
            others = sorted(name for name, kind in kinds.items() if kind != "train")
            instead = f"test_split: {others[0]}" if others else f"train_split: {min(kinds)}"
            return f"{about}split {absent[0]} (if there is none, say {instead})"
        return ", ".join(missing) or None

    if dataset.revision is not None and COMMIT.fullmatch(dataset.revision):
        folder = cached_folder(dataset.name, dataset.revision, kind="dataset", cache=cache)
        if folder is not None and lacking(folder) is None:  # a commit's files do not change
            return {file: folder / file for file in choose(_inside(folder))}
    try:
        folder = download(
            dataset.name,
            dataset.revision,
            kind="dataset",
            choose=choose,
            lacking=lacking,
            offline=options.offline,
            endpoint=endpoint,
            cache=cache,
            path="folder of Parquet files",
        )
    except UserError as error:
        raise type(error)(f"dataset {error}") from error
    return {file: folder / file for file in choose(_inside(folder))}


def _inside(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet"))


def _of_config(files: Iterable[str], config: str | None, where: str) -> list[str]:
    parquet = [file for file in files if file.endswith(".parquet")]
    if not parquet:
        raise UserError(f"{where}: no Parquet files; mergerisk reads no other dataset of the hub")
    return of_config(parquet, config, where)
