"""Arrays that are never whole in memory: written by portions, verified once, read by rows."""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mergerisk.errors import UserError
from mergerisk.row_files import RowFile, write_rows
from mergerisk.store import DamagedArtefactError, Store, content_key
from mergerisk.store import store as module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECIPE = {"stage": "rows"}
KEY = content_key(RECIPE)
ROWS = np.random.default_rng(0).integers(0, 256, (23, 3, 4, 3), dtype=np.uint8)


def portions(*sizes: int) -> Iterator[np.ndarray[Any, Any]]:
    start = 0
    for size in sizes:
        yield ROWS[start : start + size]
        start += size


def put(store: Store, *sizes: int) -> None:
    spooled = store.spool(KEY, portions(*sizes))
    store.put(KEY, {"labels": np.arange(23)}, recipe=RECIPE, info={"a": 1}, spooled={"images": spooled})


@pytest.mark.parametrize("sizes", [(23,), (1,) * 23, (10, 0, 13), (7, 16)])
def test_what_goes_in_by_portions_comes_out_by_rows(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    put(Store(tmp_path), *sizes)
    found = Store(tmp_path).get(KEY)
    assert found.arrays.keys() == {"labels"}
    rows = found.rows["images"]
    assert (len(rows), rows.shape, rows.dtype) == (23, ROWS.shape, np.uint8)
    for index in (0, -1, np.int64(5), slice(3, 9), slice(20, 99), slice(4, 4), slice(None, None, -3)):
        assert np.array_equal(rows[index], ROWS[index])
    for positions in ([4, 5, 6, 2, 2, 22, 0], [], [-1, 3]):
        assert np.array_equal(rows[np.array(positions, dtype=np.int64)], ROWS[np.array(positions, dtype=np.int64)])
    with pytest.raises(IndexError):
        rows[23]
    about = Store(tmp_path).manifest(KEY)["rows"]["images"]
    assert about["sha256"] == hashlib.sha256(ROWS.tobytes()).hexdigest()
    assert about["bytes"] == ROWS.nbytes
    assert not list((tmp_path / "temporary").iterdir())


def test_floats_and_vectors_too(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 7)
    with (tmp_path / "rows").open("wb") as file:
        written = write_rows(file, [values[:3], values[3:]])
    rows = RowFile.open(tmp_path / "rows", written.shape, written.dtype)
    assert rows[2] == values[2]
    assert np.array_equal(rows[1:6], values[1:6])


def test_portions_must_agree(tmp_path: Path) -> None:
    with (tmp_path / "rows").open("wb") as file:
        with pytest.raises(ValueError, match="must agree"):
            write_rows(file, [ROWS, ROWS[:, :2]])
        with pytest.raises(ValueError, match="at least one"):
            write_rows(file, [])


def test_rows_read_with_short_reads_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Store(tmp_path), 23)
    rows = Store(tmp_path).get(KEY).rows["images"]
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: read(fd, [buffers[0][:7]], offset))
    assert np.array_equal(rows[2:20], ROWS[2:20])


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_rows_are_found_when_first_opened(tmp_path: Path, damage: str) -> None:
    put(Store(tmp_path), 23)
    file = tmp_path / "objects" / KEY[:2] / KEY / "images.rows"
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    else:
        content[5] ^= 1
        file.write_bytes(content if damage == "flip" else content[:-1])
    store = Store(tmp_path)
    with pytest.raises(DamagedArtefactError):
        store.get(KEY)
    assert not store.has(KEY)
    put(store, 23)
    assert np.array_equal(store.get(KEY).rows["images"][:], ROWS)


def test_the_checksum_is_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Store(tmp_path), 23)
    store, digested = Store(tmp_path), []
    digest = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        digested.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(module.hashlib, "file_digest", counted)
    for _ in range(3):
        assert np.array_equal(store.get(KEY).rows["images"][7], ROWS[7])
    assert len(digested) == 1
    store.set_aside(KEY)
    put(store, 23)
    store.get(KEY)
    assert len(digested) == 2


def test_a_file_that_ends_early_is_no_silent_zero(tmp_path: Path) -> None:
    with (tmp_path / "rows").open("wb") as file:
        written = write_rows(file, portions(23))
    rows = RowFile.open(tmp_path / "rows", written.shape, written.dtype)
    os.truncate(tmp_path / "rows", 40)
    with pytest.raises(OSError, match="ended early"):
        rows[20]
    put(Store(tmp_path), 23)
    rows = Store(tmp_path).get(KEY).rows["images"]
    os.truncate(tmp_path / "objects" / KEY[:2] / KEY / "images.rows", 40)
    with pytest.raises(DamagedArtefactError):
        rows[20]
    assert not Store(tmp_path).has(KEY)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        store.spool(KEY, portions(23))
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.undo()
    spooled = store.spool(KEY, portions(23))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        store.put(KEY, {}, recipe=RECIPE, spooled={"images": spooled})
    assert not list((tmp_path / "temporary").iterdir())
    assert not store.has(KEY)


def test_a_broken_source_and_a_killed_predecessor_leave_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray[Any, Any]]:
        yield ROWS
        raise UserError("a source is broken")

    store = Store(tmp_path)
    with pytest.raises(UserError, match="a source is broken"):
        store.spool(KEY, broken())
    assert not list((tmp_path / "temporary").iterdir())
    store.spool(KEY, portions(23))  # and nothing more: as if it had been killed here
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    put(store, 23)
    assert not list((tmp_path / "temporary").iterdir())


def test_an_artefact_that_exists_stays_and_the_spooled_array_goes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, 23)
    manifest = store.manifest(KEY)
    put(store, 5)
    assert store.manifest(KEY) == manifest
    assert not list((tmp_path / "temporary").iterdir())


def test_rows_do_not_stay_in_memory(tmp_path: Path) -> None:
    """What a process keeps after a pass over 64 MiB of rows is less than a quarter of them."""
    import subprocess
    import sys

    program = (
        "import resource, sys; from pathlib import Path; import numpy as np; from mergerisk.store import Store\n"
        "store = Store(Path(sys.argv[1])); peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "portions = (np.full((16, 2**16), i, np.uint8) for i in range(64))\n"
        "store.put('k' * 64, {}, recipe={}, spooled={'rows': store.spool('k' * 64, portions)})\n"
        "rows = Store(Path(sys.argv[1])).get('k' * 64).rows['rows']\n"
        "assert sum(int(rows[i : i + 16].max()) for i in range(0, 1024, 16)) == sum(range(64))\n"
        "print(peak() - before)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 2**24
