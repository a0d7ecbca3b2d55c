"""Artefacts exist whole or not at all, whatever happens to the process, the disk or the bytes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mergerisk.errors import UserError
from mergerisk.store import DamagedArtefactError, LostArtefactError, Store, canonical_json, content_key

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPE = {"stage": "test", "parameters": {"b": [1, 2.5], "a": None}}
KEY = content_key(RECIPE)


def payload() -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    return {
        "weights": random.normal(size=(3, 4)).astype(np.float32),
        "counts": np.arange(5),
        "flags": np.array([True, False]),
        "scalar": np.float32(3.5).reshape(()),
    }


def test_keys_ignore_order_and_white_space_but_nothing_else() -> None:
    assert canonical_json({"b": 1, "a": [0.1, None, True]}) == '{"a":[0.1,null,true],"b":1}'
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.5})
    # The published SHA-256 of the two bytes "{}".
    assert content_key({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    with pytest.raises(ValueError, match="Out of range"):
        content_key({"a": float("nan")})


@pytest.mark.parametrize("compressed", [(), ("weights", "counts")])
def test_what_goes_in_comes_out(tmp_path: Path, compressed: tuple[str, ...]) -> None:
    store = Store(tmp_path)
    assert not store.has(KEY)
    store.put(
        KEY, payload(), recipe=RECIPE, info={"names": ["x"]}, provenance={"seconds": 1.0}, compressed=compressed
    )
    found = Store(tmp_path).get(KEY)
    assert found.arrays.keys() == payload().keys()
    for name, array in payload().items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)
    assert found.info == {"names": ["x"]}
    assert store.manifest(KEY)["recipe"] == RECIPE
    assert found.provenance == {"seconds": 1.0}
    assert not list((tmp_path / "temporary").iterdir())


def test_a_missing_artefact_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Store(tmp_path).get(KEY)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest"])
def test_damage_is_found_moved_aside_and_can_be_made_again(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.put(KEY, payload(), recipe=RECIPE)
    folder = tmp_path / "objects" / KEY[:2] / KEY
    file = folder / ("manifest.json" if damage == "manifest" else "arrays.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedArtefactError) as caught:
        store.get(KEY)
    assert caught.value.key == KEY
    assert not store.has(KEY)
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    store.put(KEY, payload(), recipe=RECIPE)
    np.testing.assert_array_equal(store.get(KEY).arrays["counts"], np.arange(5))


def _flip_in(word: bytes, content: bytes) -> bytes:
    assert word in content
    return content.replace(word, bytes([word[0] ^ 1]) + word[1:])


MANIFESTS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
    "zeroed": lambda content: bytes(len(content)),
    "noise": lambda content: bytes(byte ^ 0xA5 for byte in content),
    "other JSON": lambda _: b"{}",
    "a list": lambda _: b"[]",
    "a number": lambda _: b"1",
    "deeper JSON": lambda _: b'{"format": 2, "files": [], "info": null}',
    "one bit of a fact": lambda content: _flip_in(b"names", content),
    "one bit of the recipe": lambda content: _flip_in(b"recipe", content),
}
"""Ways to damage a manifest, each of which leaves a file."""


@pytest.mark.parametrize("damage", MANIFESTS)
def test_a_damaged_manifest_is_damage_like_any_other(tmp_path: Path, damage: str) -> None:
    for read in (Store.get, Store.manifest, Store.verify):
        store = Store(tmp_path / read.__name__)
        store.put(KEY, payload(), recipe=RECIPE, info={"names": ["x"]})
        file = store.root / "objects" / KEY[:2] / KEY / "manifest.json"
        file.write_bytes(MANIFESTS[damage](file.read_bytes()))
        with pytest.raises(DamagedArtefactError) as caught:
            read(store, KEY)
        assert caught.value.key == KEY
        assert not store.has(KEY)
        assert len(list((store.root / "damaged").iterdir())) == 1
        store.put(KEY, payload(), recipe=RECIPE)
        np.testing.assert_array_equal(store.get(KEY).arrays["counts"], np.arange(5))


@pytest.mark.parametrize("left", ["payload alone", "nothing", "a file", "another manifest"])
def test_what_stands_in_an_artefacts_place_is_moved_aside_when_it_is_made_again(tmp_path: Path, left: str) -> None:
    store = Store(tmp_path)
    store.put(KEY, payload(), recipe=RECIPE)
    folder = tmp_path / "objects" / KEY[:2] / KEY
    if left == "another manifest":
        store.put(other := KEY[:2] + "0" * 62, payload(), recipe=RECIPE)
        manifest = tmp_path / "objects" / other[:2] / other / "manifest.json"
        (folder / "manifest.json").write_bytes(manifest.read_bytes())
        with pytest.raises(DamagedArtefactError):
            store.get(KEY)
    else:
        for file in folder.iterdir():
            if left != "payload alone" or file.name == "manifest.json":
                file.unlink()
        if left == "a file":
            folder.rmdir()
            folder.write_bytes(b"in the way")
        with pytest.raises(KeyError):
            store.get(KEY)
    store.put(KEY, payload(), recipe=RECIPE)
    np.testing.assert_array_equal(store.get(KEY).arrays["counts"], np.arange(5))
    assert len(list((tmp_path / "damaged").iterdir())) == (left != "nothing")
    assert not list((tmp_path / "temporary").iterdir())


def test_what_the_system_refuses_for_now_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.put(KEY, payload(), recipe=RECIPE)

    def refused(_: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(UserError, match=r"cannot be read: Too many open files"):
        store.get(KEY)
    monkeypatch.undo()
    np.testing.assert_array_equal(store.get(KEY).arrays["counts"], np.arange(5))


def test_two_who_find_the_same_damage_do_not_disturb_each_other(tmp_path: Path) -> None:
    stores = [Store(tmp_path) for _ in range(8)]
    stores[0].put(KEY, payload(), recipe=RECIPE)
    file = tmp_path / "objects" / KEY[:2] / KEY / "arrays.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    barrier, met = threading.Barrier(len(stores)), []

    def read(store: Store) -> None:
        barrier.wait()
        try:
            store.get(KEY)
        except LostArtefactError as error:
            met.append(error.key)

    threads = [threading.Thread(target=read, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == [KEY] * len(stores)
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full; free space and run again"):
        store.put(KEY, payload(), recipe=RECIPE)
    monkeypatch.undo()
    assert not store.has(KEY)
    assert not list((tmp_path / "temporary").iterdir())
    store.put(KEY, payload(), recipe=RECIPE)


def test_a_store_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written to"):
        Store(tmp_path / "file" / "store")


def test_the_right_to_make_an_artefact_is_exclusive(tmp_path: Path) -> None:
    store = Store(tmp_path)
    order = []

    def other() -> None:
        with Store(tmp_path).making(KEY) as ours:
            order.append(("other", ours))

    with store.making(KEY) as ours:
        assert ours
        with Store(tmp_path).making(KEY, wait=False) as second:
            assert not second
        thread = threading.Thread(target=other)
        thread.start()
        order.append(("first", True))
    thread.join()
    assert order == [("first", True), ("other", True)]


def test_a_killed_process_gives_its_right_back(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from mergerisk.store import Store\n"
        f"with Store(Path({str(tmp_path)!r})).making({KEY!r}):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with Store(tmp_path).making(KEY, wait=False) as ours:
        assert not ours
    process.kill()
    process.wait()
    process.stdout.close()
    with Store(tmp_path).making(KEY, wait=False) as ours:
        assert ours


def test_two_writers_of_one_key_do_not_disturb_each_other(tmp_path: Path) -> None:
    stores = [Store(tmp_path) for _ in range(8)]
    barrier = threading.Barrier(len(stores))

    def write(store: Store) -> None:
        barrier.wait()
        store.put(KEY, payload(), recipe=RECIPE)

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(stores[0].get(KEY).arrays["counts"], np.arange(5))
    assert not list((tmp_path / "temporary").iterdir())


def test_files_are_those_of_the_safetensors_library(tmp_path: Path) -> None:
    from safetensors.numpy import load, save

    draws = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "b": draws.normal(size=(3, 4)).astype(np.float32),
        "a ε": draws.normal(size=(2, 1, 5)),
        "scalar": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 3), dtype=np.float32),
        "mask": draws.integers(0, 2, 5).astype(bool),
        "turned": np.arange(12, dtype=np.int32).reshape(3, 4).T,
        "half": draws.normal(size=3).astype(np.float16),
    }
    arrays |= {
        name: draws.integers(0, 9, 3).astype(name)
        for name in ("uint8", "int8", "int16", "uint16", "uint32", "uint64")
    }
    store = Store(tmp_path)
    store.put(KEY, arrays, recipe={})
    content = store.tensors(KEY).read_bytes()
    contiguous = {name: array.copy(order="C") for name, array in arrays.items()}
    assert content == save(contiguous)
    for name, array in load(content).items():
        assert array.dtype == arrays[name].dtype
        assert array.shape == arrays[name].shape
        assert np.array_equal(array, arrays[name])
    store.verify(KEY)


def test_verifying_finds_damage_without_reading_arrays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyError):
        store.verify(KEY)
    store.put(KEY, {"x": np.arange(10)}, recipe={})
    file = store.tensors(KEY)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(DamagedArtefactError):
        store.verify(KEY)
    assert not store.has(KEY)
