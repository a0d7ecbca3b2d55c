"""A store looked after: what it takes, what is damaged, what can go."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mergerisk.errors import UserError
from mergerisk.store import Store, content_key
from mergerisk.store.housekeeping import Damage, collect, keys, usage, verify

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.store import Json


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three artefacts: two of kind ``merge``, one of kind ``craft`` that is read by rows."""
    made = Store(tmp_path / "store")
    for number in range(2):
        recipe: dict[str, Json] = {"stage": "merge", "number": number}
        made.put(
            content_key(recipe),
            {"weights": np.full(100, number, np.float32)},
            recipe=recipe,
            provenance={"label": f"merge {number}"},
        )
    recipe = {"stage": "craft"}
    key = content_key(recipe)
    made.put(key, {}, recipe=recipe, spooled={"images": made.spool(key, [np.zeros((4, 1000), np.uint8)])})
    return made


def _key(**recipe: Json) -> str:
    return content_key(recipe)


def test_usage_counts_every_file_by_kind(store: Store) -> None:
    by_kind = {share.kind: share for share in usage(store)}
    assert {kind: share.artefacts for kind, share in by_kind.items()} == {"merge": 2, "craft": 1}
    assert list(by_kind) == ["craft", "merge"]  # the largest first
    listed = sum(path.stat().st_size for path in (store.root / "objects").rglob("*") if path.is_file())
    assert sum(share.bytes for share in by_kind.values()) == listed


@pytest.mark.parametrize(
    ("recipe", "name", "label"),
    [
        ({"stage": "merge", "number": 1}, "arrays.safetensors", "merge 1"),
        ({"stage": "craft"}, "images.rows", ""),
        ({"stage": "merge", "number": 0}, "manifest.json", ""),
    ],
)
def test_a_flipped_bit_in_any_file_is_found_and_moved_aside(
    store: Store, recipe: dict[str, Json], name: str, label: str
) -> None:
    key = _key(**recipe)
    seen: list[tuple[int, ...]] = []
    path = store.folder(key) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = verify(store, lambda *done: seen.append(done))
    assert [damage.key for damage in found] == [key]
    assert name == "manifest.json" or found == [Damage(key, label)]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert len(keys(store.root)) == 2
    assert verify(Store(store.root)) == []


def test_a_folder_without_a_manifest_is_damage_too(store: Store) -> None:
    key = _key(stage="craft")
    (store.folder(key) / "manifest.json").unlink()
    assert verify(store) == [Damage(key, "")]
    assert key not in keys(store.root)


def test_collecting_removes_what_nobody_keeps_and_nothing_else(store: Store) -> None:
    kept, made = _key(stage="craft"), _key(stage="merge", number=0)
    (store.root / "damaged" / "x").mkdir()
    for name, age in (("old", 7200.0), ("young", 10.0)):
        left = store.root / "temporary" / name
        left.write_bytes(b"1234")
        os.utime(left, (time.time() - age,) * 2)
    with store.making(made):
        would = collect(store, [kept], dry=True)
        assert len(keys(store.root)) == 3
        gone = collect(store, [kept])
    assert would == gone
    assert {share.kind: share.artefacts for share in gone} == {"merge": 1, "damaged": 1, "unfinished": 1}
    assert {share.kind: share.bytes for share in gone}["unfinished"] == 4
    assert keys(store.root) == sorted([kept, made])  # one is being made
    assert [left.name for left in (store.root / "temporary").iterdir()] == ["young"]


def test_without_keys_to_keep_every_artefact_stays(store: Store) -> None:
    assert collect(store) == []
    assert len(keys(store.root)) == 3


def test_no_store_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store; give the folder of one"):
        keys(tmp_path)
