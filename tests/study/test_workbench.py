"""Models on the workbench: how many are kept, and that large ones are read from the store tensor by tensor."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mergerisk.store import DamagedArtefactError, Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.executors.attempt import make_artefact
from mergerisk.study.kinds.correct import Correct
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.recent import Recent
from mergerisk.study.workbench import Compute, Workbench
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study.stage import Stage


def test_many_small_things_are_kept_and_a_large_one_alone() -> None:
    held: list[str] = []
    made: list[str] = []

    class Thing:
        def __init__(self, name: str) -> None:
            assert name != "huge" or not held  # room is made first
            made.append(name)
            held.append(name)
            self.name = name

        def __del__(self) -> None:
            held.remove(self.name)

    recent: Recent[Thing] = Recent(10)
    for name in ("a", "b", "c", "a", "d"):
        assert recent.get(name, 3, lambda name=name: Thing(name)).name == name
    assert held == ["a", "c", "d"]  # b was used longest ago
    assert made == ["a", "b", "c", "d"]
    recent.get("huge", 11, lambda: Thing("huge"))
    recent.get("huge", 11, lambda: Thing("again"))
    assert held == ["huge"]
    recent.make_room()
    assert held == []
    recent.get("a", 10, lambda: Thing("a"))
    recent.make_room()
    assert held == ["a"]
    for name in ("b", "c"):  # as large as it is found to be
        recent.get(name, lambda thing: 5 if thing.name == "b" else 6, lambda name=name: Thing(name))
    assert held == ["c"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> tuple[Path, list[Stage]]:
    """A store with everything up to experts, and the stages that come after."""
    folder = tmp_path_factory.mktemp("workbench")
    merging = ["weight_averaging", "ties+surgery", {"method": "adamerging", "steps": 2}, "emr+surgery_v2"]
    specs: list[Any] = [
        {"method": spec, spec.partition("+")[2]: {"steps": 3}} if isinstance(spec, str) and "+" in spec else spec
        for spec in merging
    ]
    study = write_tiny_study(
        folder, tiny_vit, merging=specs, experts={"fine_tune": {"epochs": 1, "batch_size": 16}}
    )
    stages = list(make_plan(load_study(study)).stages.values())
    bench = Workbench(Store(folder / "store"), Compute())
    for stage in stages:
        if stage.kind in {"task", "head", "expert"}:
            make_artefact(stage, bench)
    return folder / "store", [stage for stage in stages if stage.kind in {"merge", "correct", "clean"}]


def test_large_models_give_the_same_artefacts(
    made: tuple[Path, list[Stage]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, stages = made
    stores = []
    for large in (0, 2**30):
        monkeypatch.setattr("mergerisk.study.workbench._LARGE", large)
        monkeypatch.setattr("mergerisk.study.workbench._MODEL_CACHE_BYTES", large)
        stores.append(Store(shutil.copytree(prepared, tmp_path / str(large))))
        bench = Workbench(stores[-1], Compute())
        for stage in stages:
            make_artefact(stage, bench)
            cached = bench._merged._kept
            assert len(cached) <= 1 or large
            if not large and stage.kind != "clean":
                kept = set(bench._artefacts._kept)
                assert isinstance(stage, Merge | Correct)
                assert not kept & {made.key for made in stage.ingredients.values()}
    for stage in stages:
        one, other = (store.get(stage.key) for store in stores)
        assert one.arrays.keys() == other.arrays.keys()
        assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)
        assert one.info == other.info


@pytest.mark.parametrize("large", [0, 2**30])
def test_a_damaged_expert_is_found_however_it_is_read(
    made: tuple[Path, list[Stage]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    prepared, stages = made
    monkeypatch.setattr("mergerisk.study.workbench._LARGE", large)
    store = Store(shutil.copytree(prepared, tmp_path / "store"))
    merge = next(stage for stage in stages if isinstance(stage, Merge))
    key = next(iter(merge.ingredients.values())).key
    content = bytearray(store.tensors(key).read_bytes())
    content[-1] ^= 1
    store.tensors(key).write_bytes(bytes(content))
    with pytest.raises(DamagedArtefactError) as caught:
        make_artefact(merge, Workbench(store, Compute()))
    assert caught.value.key == key
    assert not store.has(key)


def test_what_stages_have_freed_goes_back_once_it_is_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, returned = [2**30], []

    def give_back() -> None:
        returned.append(held[0])
        held[0] = 3 * 2**29

    monkeypatch.setattr("mergerisk.study.workbench.resident_memory", lambda: held[0])
    monkeypatch.setattr("mergerisk.study.workbench.return_freed", give_back)
    bench = Workbench(Store(tmp_path), Compute())
    for now in (2**31, 2**31 + 2**20, 2**31 + 2**28, 2**32):
        held[0] = now
        bench.tidy()
    assert returned == [2**31 + 2**20, 2**32]  # a gigabyte more than at the start, and than after the first time
