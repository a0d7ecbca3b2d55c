"""The power goes between any two calls to the system: what was finished is there, what was not is made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergerisk.disk import new_folder, replacing, write_flushed
from mergerisk.store import LostArtefactError, Store, content_key
from tests.power import PowerLoss, restored

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = {"stage": "craft"}
KEY = content_key(RECIPE)
WEIGHTS, LABELS, IMAGES = (
    np.arange(50, dtype=np.float32),
    np.arange(9) % 3,
    np.arange(24, dtype=np.uint8).reshape(4, 6),
)


def _put(store: Store) -> None:
    waiting = store.spool(KEY, [IMAGES[:1], IMAGES[1:]])
    arrays = {"weights": WEIGHTS, "labels": LABELS}
    store.put(KEY, arrays, recipe=RECIPE, compressed=["labels"], spooled={"images": waiting})


def _is_whole(store: Store) -> bool:
    """Whether the artefact is there; if so it is what was put, or this fails."""
    try:
        found = store.get(KEY)
    except LostArtefactError:
        return False
    assert np.array_equal(found.arrays["weights"], WEIGHTS)
    assert np.array_equal(found.arrays["labels"], LABELS)
    assert np.array_equal(found.rows["images"][:], IMAGES)
    return True


def test_an_artefact_is_whole_or_made_again(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    with PowerLoss(tmp_path / "real").watching() as power:
        _put(Store(tmp_path / "real" / "new" / "store"))
    assert len(power.after) > 10
    there = []
    for number, disks in enumerate(power.after):
        for kind, disk in disks.items():
            left = Store(restored(disk, tmp_path / f"{number}-{kind}") / "new" / "store")
            there.append(_is_whole(left))
            _put(left)
            assert _is_whole(left), (number, kind)
    assert there[0] is False
    assert there[-2:] == [True, True]  # it was said to be finished: both extremes have it


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    root = tmp_path / "real"
    root.mkdir()
    (root / "run.json").write_bytes(b"old")
    with PowerLoss(root).watching() as power, replacing(root / "run.json") as file:
        file.write(b"new and longer")
    found = [disk["run.json"] for disks in power.after for disk in disks.values()]
    assert set(found) == {b"old", b"new and longer"}
    assert found[-2:] == [b"new and longer"] * 2


def test_a_new_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    root = tmp_path / "real"
    root.mkdir()
    with PowerLoss(root).watching() as power, new_folder(root / "out", 10) as folder:
        (folder / "inner").mkdir()
        write_flushed(folder / "inner" / "a", "one")
        write_flushed(folder / "b", "two")
    whole = {"out": None, "out/inner": None, "out/inner/a": b"one", "out/b": b"two"}
    for disks in power.after:
        for disk in disks.values():
            seen = {name: content for name, content in disk.items() if name.split("/")[0] == "out"}
            assert seen in ({}, whole)
    assert all(disk == whole for disk in power.after[-1].values())
