"""Where a data set keeps its Parquet files: what their paths say of configurations and splits."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mergerisk.disk import refuse_special
from mergerisk.errors import UserError, did_you_mean
from mergerisk.tasks.splits import kinds_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-(?P<count>\d{5})(-[0-9a-f]+)?", re.ASCII)
"""``train-00000-of-00002.parquet``, sometimes with a hash."""

_PART = re.compile(r"(?P<split>.+?)[-_.]\d{5,}([-_.].*)?", re.ASCII)
"""``my-photos-train-00000.parquet``, and ``part-00000-….snappy.parquet`` as Spark writes it."""

_USUAL = ("data", "default")
"""Folders that stand for no configuration."""


def split_of(file: str) -> str:
    """The split that a file of a data set belongs to, by its path in the data set.

    ``train`` for ``data/train-00000-of-00002.parquet``, ``train.parquet``, ``default/train/0000.parquet`` and
    ``train/part-0.parquet``.
    """
    return _split_and_folders(file)[0]


def _split_and_folders(file: str) -> tuple[str, tuple[str, ...]]:
    """The split, and the folders around it."""
    path = PurePosixPath(file)
    folders, stem = path.parts[:-1], path.stem
    part = _SHARD.fullmatch(stem) or _PART.fullmatch(stem)
    own = part["split"] if part else stem
    if folders and not kinds_of([own])[own]:
        if stem.isdigit():
            return folders[-1], folders[:-1]
        for depth in range(len(folders) - 1, -1, -1):
            if kinds_of([folders[depth]])[folders[depth]]:
                return folders[depth], folders[:depth] + folders[depth + 1 :]
    return own, folders


def config_of(file: str) -> str:
    """The configuration that a file belongs to: the folders around its split, but those that are always there.

    Empty for ``train.parquet``, ``data/train-00000-of-00001.parquet`` and ``default/train/0000.parquet``; ``fog``
    for ``fog/train.parquet`` and ``data/fog/train/0000.parquet``.
    """
    return "/".join(folder for folder in _split_and_folders(file)[1] if folder not in _USUAL)


def of_config(files: Iterable[str], config: str | None, where: str) -> list[str]:
    """The files of one configuration, sorted; if none is named, those that belong to none, or to the only one.

    Raises:
        UserError: no such configuration, or several to choose from.
    """
    parquet = sorted(files)
    configs = {file: config_of(file) for file in parquet}
    there = sorted(set(configs.values()))
    if config is not None:
        usual = f"{config}/" if config in _USUAL else None
        inside = [file for file in parquet if configs[file] == config or (usual and file.startswith(usual))]
        if not inside:
            raise UserError(
                f"{where}: no config {config!r}{did_you_mean(config, [name for name in there if name])}"
            )
        return inside
    if "" not in there and len(there) > 1:
        raise UserError(f"{where}: several configurations; say config, one of: {', '.join(there)}")
    return [file for file in parquet if configs[file] == there[0]]


def lacking_shards(files: Iterable[str]) -> list[str]:
    """Files that must be there, since others say so: those missing of ``…-of-00002``."""
    known = set(files)
    lacking = set()
    for file in known:
        shard = _SHARD.fullmatch(PurePosixPath(file).stem)
        if shard and not shard[3]:
            folder = PurePosixPath(file).parent
            for number in range(int(shard["count"])):
                lacking.add((folder / f"{shard['split']}-{number:05d}-of-{shard['count']}.parquet").as_posix())
    return sorted(lacking - known)


def parquet_files(path: Path, config: str | None = None) -> dict[str, Path]:
    """Name → file, sorted: the file itself, or those of one configuration below a folder.

    Raises:
        UserError: a folder has none, or several configurations of which none is named.
    """
    if path.is_file():
        return {path.name: path}
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*.parquet")}
    visible = {name for name in found if not any(part.startswith(".") for part in name.split("/"))}
    if not visible:
        raise UserError(f"{path}: no Parquet files")
    for name in visible:
        with suppress(OSError):  # a link to nothing: said when it is read
            refuse_special(found[name])
    return {name: found[name] for name in of_config(visible, config, str(path))}
