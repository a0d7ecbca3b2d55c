"""What a store holds, whether it is still what was written, and what of it can go.

Nothing here disturbs a run that works on the same store: what it makes is locked, what it misses it makes again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.store._manifests import MANIFEST
from mergerisk.store.artefacts import LostArtefactError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from mergerisk.store.store import Store

_UNTOUCHED = 3600.0
"""Seconds after which a temporary folder is a dead process's; a living one writes to its own all the time."""


@dataclass(frozen=True)
class Usage:
    """What one kind of artefact takes of a store.

    Attributes:
        kind: the stage's kind, or ``damaged`` (moved aside) and ``unfinished`` (a killed process's).
        artefacts: how many.
        bytes: of all their files, as they are listed; a file system may take more.
    """

    kind: str
    artefacts: int
    bytes: int


@dataclass(frozen=True)
class Damage:
    """An artefact that was not what had been written.

    Attributes:
        key: the artefact's; it has been moved aside and is made again when a run needs it.
        label: what it was, as far as its manifest could be read; empty if not.
    """

    key: str
    label: str


def keys(root: Path) -> list[str]:
    """The keys of all artefacts in the store's folder, sorted.

    Raises:
        UserError: there is no store.
    """
    if not (root / "objects").is_dir():
        raise UserError(f"{root}: no store; give the folder of one, or of a run that holds its own")
    return sorted(place.name for place in (root / "objects").glob("??/*") if place.name[:2] == place.parent.name)


def usage(store: Store) -> list[Usage]:
    """What each kind of artefact takes, the largest first; then what was moved aside and what is unfinished.

    Raises:
        UserError: there is no store.
    """
    counts: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    for key in keys(store.root):
        kind = _described(store, key)[0]
        counts[kind] += 1
        sizes[kind] += _bytes(store.folder(key))
    shares = [Usage(kind, counts[kind], sizes[kind]) for kind in counts]
    shares.sort(key=lambda share: (-share.bytes, share.kind))
    for name, folder in (("damaged", "damaged"), ("unfinished", "temporary")):
        left = list((store.root / folder).iterdir())
        if left:
            shares.append(Usage(name, len(left), sum(map(_bytes, left))))
    return shares


def verify(store: Store, listener: Callable[[int, int], None] | None = None) -> list[Damage]:
    """Hold every artefact against its checksums; what is damaged is moved aside, to be made again.

    Args:
        store: the store.
        listener: told after each artefact how many are done, and of how many.

    Raises:
        UserError: there is no store, or the system does not let it be read.
    """
    damaged = []
    found = keys(store.root)
    for number, key in enumerate(found, 1):
        label = _described(store, key)[1]
        try:
            store.verify(key)
        except LostArtefactError:
            store.set_aside(key)  # a folder without a manifest is still there
            damaged.append(Damage(key, label))
        if listener is not None:
            listener(number, len(found))
    return damaged


def collect(store: Store, keep: Collection[str] | None = None, *, dry: bool = False) -> list[Usage]:
    """Remove what was moved aside, what dead processes left, and artefacts that are not to be kept.

    Args:
        store: the store.
        keep: keys of artefacts to keep; ``None`` keeps all. One that a run is making stays.
        dry: remove nothing, only say what would go.

    Returns:
        What went, by kind.

    Raises:
        UserError: the store's folder cannot be written to.
    """
    counts: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    for key in () if keep is None else [key for key in keys(store.root) if key not in keep]:
        with store.making(key, wait=False) as free:
            if free:
                _remove([(_described(store, key)[0], store.folder(key))], counts, sizes, dry=dry)
    _remove((("damaged", place) for place in (store.root / "damaged").iterdir()), counts, sizes, dry=dry)
    dead = (place for place in (store.root / "temporary").iterdir() if time.time() - _touched(place) > _UNTOUCHED)
    _remove((("unfinished", place) for place in dead), counts, sizes, dry=dry)
    return [Usage(kind, counts[kind], sizes[kind]) for kind in counts]


def _remove(
    places: Iterable[tuple[str, Path]], counts: dict[str, int], sizes: dict[str, int], *, dry: bool
) -> None:
    for kind, place in places:
        counts[kind] += 1
        sizes[kind] += _bytes(place)
        if dry:
            continue
        try:
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()
        except FileNotFoundError:
            pass  # its owner was quicker
        except OSError as error:
            raise UserError(f"{place}: cannot be removed: {error.strerror}") from error


def _described(store: Store, key: str) -> tuple[str, str]:
    """An artefact's kind and label, as far as its manifest says; nothing is checked or moved."""
    try:
        manifest = json.loads((store.folder(key) / MANIFEST).read_bytes())
        return str(manifest["recipe"]["stage"]), str(manifest["provenance"].get("label", ""))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "unreadable", ""


def _files(place: Path) -> Iterator[Path]:
    yield place
    if place.is_dir() and not place.is_symlink():
        yield from place.rglob("*")


def _bytes(place: Path) -> int:
    """Of all files below a place; what goes away meanwhile takes none."""
    total = 0
    for path in _files(place):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        total += 0 if path.is_dir() and not path.is_symlink() else found.st_size
    return total


def _touched(place: Path) -> float:
    """When something of a place was written last, in seconds since 1970."""
    times = [0.0]
    for path in _files(place):
        try:
            times.append(path.lstat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)
