"""Folders, links, pipes and what may not be touched where the store's files belong: made again, or one line."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mergerisk.errors import UserError
from mergerisk.store import LostArtefactError, Store, content_key
from mergerisk.study.query_budget import SharedQueries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECIPE = {"stage": "test"}
KEY = content_key(RECIPE)
ARRAYS = {"weights": np.arange(1000.0)}


def put(store: Store) -> None:
    spooled = {"images": store.spool(KEY, [np.zeros((4, 3), np.uint8)])}
    store.put(KEY, ARRAYS | {"few": np.zeros(9)}, recipe=RECIPE, compressed=["few"], spooled=spooled)


def read(store: Store) -> None:
    found = store.get(KEY)
    np.testing.assert_array_equal(found.arrays["weights"], ARRAYS["weights"])
    assert found.rows["images"][0].tolist() == [0, 0, 0]


def folder_of(root: Path) -> Path:
    return root / "objects" / KEY[:2] / KEY


@contextmanager
def as_nobody(root: Path) -> Iterator[None]:
    """Permissions mean nothing to root."""
    if os.geteuid() != 0:
        yield
        return
    for place in (root, *root.rglob("*")):
        os.chown(place, 65534, 65534, follow_symlinks=False)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that anybody may get at."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place / "store"
    for inside in place.rglob("*"):
        if inside.is_dir() and not inside.is_symlink():
            inside.chmod(0o755)
    shutil.rmtree(place)


def _larger(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


REPLACED: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to a folder": lambda path: path.symlink_to("/"),
    "empty": Path.touch,
    "larger": _larger,
}


@pytest.mark.parametrize("kind", REPLACED)
@pytest.mark.parametrize("name", ["manifest.json", "arrays.safetensors", "few.parquet", "images.rows", "."])
def test_what_stands_where_an_artefact_belongs_is_moved_aside(kind: str, name: str, tmp_path: Path) -> None:
    put(Store(tmp_path))
    place = folder_of(tmp_path) / name
    shutil.rmtree(place) if name == "." else place.unlink()
    REPLACED[kind](folder_of(tmp_path) if name == "." else place)
    store = Store(tmp_path)
    with pytest.raises(LostArtefactError):
        read(store)
    if name != "images.rows":  # which nothing but a reader of rows looks at
        with pytest.raises(LostArtefactError):
            store.verify(KEY)
    put(store)
    read(Store(tmp_path))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS without a lock daemon, and some shares of clusters. Nothing stands in for a lock: who waits would wait for
    what a killed process left."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    store = Store(tmp_path / "store")
    for use, said in (
        (
            lambda: _make(store),
            "cannot be locked: the file system has no locks; move it away, or choose another store",
        ),
        (lambda: SharedQueries(tmp_path / "queries.json", 9).spend(1), "kept here: the file system has no locks;"),
    ):
        with pytest.raises(UserError) as caught:
            use()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not store.has(KEY)
    assert not (tmp_path / "queries.json").exists()
    monkeypatch.undo()
    _make(store)


@pytest.mark.parametrize("kind", ["folder", "link to itself"])
def test_a_lock_that_is_none_is_one_line(kind: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = tmp_path / "locks" / f"{KEY}.lock"
    REPLACED[kind](lock)
    with pytest.raises(UserError) as caught:
        _make(store)
    assert str(caught.value).startswith(f"{lock}: cannot be locked: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["objects", "locks", "temporary", "damaged"])
@pytest.mark.parametrize("kind", ["empty", "pipe", "device", "link to itself", "link to nothing"])
def test_what_stands_where_a_folder_belongs_is_one_line(kind: str, name: str, tmp_path: Path) -> None:
    REPLACED[kind](tmp_path / name)
    with pytest.raises(UserError, match="the store cannot be written to"):
        Store(tmp_path)


@pytest.mark.parametrize("kind", ["empty", "pipe", "link to itself"])
@pytest.mark.parametrize("name", ["objects", "locks", "temporary", "damaged"])
def test_a_folder_that_goes_while_it_is_used_is_one_line(kind: str, name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store)
    (folder_of(tmp_path) / "manifest.json").write_bytes(b"")
    shutil.rmtree(tmp_path / name)
    REPLACED[kind](tmp_path / name)
    for act in (lambda: read(store), lambda: put(store), lambda: _make(store), lambda: store.set_aside(KEY)):
        with suppress(UserError, LostArtefactError):  # a line each, and nothing else
            act()


def _make(store: Store) -> None:
    with store.making(KEY, wait=False):
        pass


@pytest.mark.parametrize(
    ("place", "mode", "act", "said"),
    [
        (f"objects/{KEY[:2]}", 0, "has", "cannot be read: Permission denied"),
        (f"objects/{KEY[:2]}/{KEY}", 0, "has", "cannot be read: Permission denied"),
        (f"objects/{KEY[:2]}/{KEY}", 0, "put", "cannot be read: Permission denied"),
        (f"objects/{KEY[:2]}/{KEY}/manifest.json", 0, "read", "cannot be read: Permission denied"),
        (f"objects/{KEY[:2]}/{KEY}/arrays.safetensors", 0, "read", "cannot be read: Permission denied"),
        (f"objects/{KEY[:2]}/{KEY}/images.rows", 0, "read", "cannot be read: Permission denied"),
        (f"objects/{KEY[:2]}/{KEY}/arrays.safetensors", 0, "verify", "cannot be read: Permission denied"),
        (f"objects/{KEY[:2]}", 0o500, "aside", "cannot be written to: Permission denied"),
        ("damaged", 0o500, "aside", "cannot be written to: Permission denied"),
        ("temporary", 0o500, "put another", "cannot be written to: Permission denied"),
        ("temporary", 0, "put another", "cannot be written to: Permission denied"),
        ("locks", 0o500, "make", "cannot be locked: Permission denied"),
        ("locks", 0, "make", "cannot be locked: Permission denied"),
        ("objects", 0, "has", "cannot be read: Permission denied"),
        ("objects", 0o500, "put another", "cannot be written to: Permission denied"),
    ],
)
def test_what_may_not_be_touched_is_one_line(place: str, mode: int, act: str, said: str, root: Path) -> None:
    store = Store(root)
    put(store)
    (root / place).chmod(mode)
    other = content_key({"stage": "other"})
    acts: dict[str, Callable[[], object]] = {
        "has": lambda: store.has(KEY),
        "put": lambda: put(store),
        "put another": lambda: store.put(other, ARRAYS, recipe={"stage": "other"}),
        "read": lambda: read(store),
        "verify": lambda: store.verify(KEY),
        "aside": lambda: store.set_aside(KEY),
        "make": lambda: _make(store),
    }
    with as_nobody(root), pytest.raises(UserError) as caught:
        acts[act]()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
