"""Damage of any file of the store, found at any moment: moved aside, said, and made again."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.executors.scheduler import Scheduler
from tests.heard import of_stages
from tests.store.test_store import MANIFESTS
from tests.tiny import arrays, write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.study import Plan, Stage

OUTCOMES = ("outcomes.parquet", "clean.parquet")

SMALL: dict[str, Any] = {
    "attacks": ["fgsm"],
    "budgets": {"epsilon": ["8/255"], "steps": 1},
    "images_per_task": 6,
    "experts": {"fine_tune": {"epochs": 1}},
}


@pytest.fixture(scope="module")
def study(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has every kind of stage."""
    merging: list[Any] = ["weight_averaging", {"method": "weight_averaging+surgery", "surgery": {"steps": 2}}]
    return write_tiny_study(tmp_path_factory.mktemp("study"), tiny_vit, **SMALL, merging=merging)


@pytest.fixture(scope="module")
def sound(study: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("sound") / "run"
    mr.run(study, folder)
    return contents(folder)


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in OUTCOMES]


def artefact(store: Store, key: str) -> Path:
    return store.root / "objects" / key[:2] / key


@pytest.mark.parametrize("workers", [1, 2])
def test_every_manifest_of_a_run_may_be_damaged(
    study: Path, sound: list[bytes], tmp_path: Path, workers: int
) -> None:
    """Each kind of artefact, in another way each; those at the plan's end are gone, so that all are needed."""
    out = tmp_path / "run"
    mr.run(study, out)
    store, plan = Store(out / "store"), make_plan(load_study(study))
    ways = [*MANIFESTS.values()]
    damaged = 0
    for number, (key, stage) in enumerate(plan.stages.items()):
        file = artefact(store, key) / "manifest.json"
        if stage.kind in {"clean", "evaluate"}:
            file.unlink()
            continue
        content = file.read_bytes()
        way = ways[number % len(ways)]
        try:
            file.write_bytes(way(content))
        except AssertionError:  # a word to flip that this manifest lacks
            file.write_bytes(b"")
        damaged += 1
    events: list[tuple[str, str]] = []
    mr.run(
        study, out, workers=workers, listeners=[of_stages(lambda stage, event: events.append((event, stage.kind)))]
    )
    assert contents(out) == sound
    said = [kind for event, kind in events if event == "damaged"]
    assert set(said) == {stage.kind for stage in plan.stages.values()} - {"clean", "evaluate"}
    assert len(list((store.root / "damaged").iterdir())) == len(plan.stages)
    assert len(json.loads((out / "run.json").read_text())["damaged"]) == damaged


def test_flipped_payloads_with_two_workers(study: Path, sound: list[bytes], tmp_path: Path) -> None:
    out = tmp_path / "run"
    mr.run(study, out)
    store, plan = Store(out / "store"), make_plan(load_study(study))
    for key, stage in plan.stages.items():
        if stage.kind in {"merge", "correct", "clean", "evaluate"}:
            store.set_aside(key)
            continue
        for file in artefact(store, key).iterdir():
            if file.name != "manifest.json":
                content = bytearray(file.read_bytes())
                content[-1] ^= 1
                file.write_bytes(content)
    mr.run(study, out, workers=2)
    assert contents(out) == sound


def unreadable(file: Path) -> None:
    """For everybody: root reads what nobody may."""
    file.unlink()
    file.mkdir()


WAYS: dict[str, Callable[[Path], object]] = {
    "a bit flipped": lambda file: file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1])),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "emptied": lambda file: file.write_bytes(b""),
    "deleted": Path.unlink,
    "zeroed": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "other JSON": lambda file: file.write_bytes(b'{"files": {}}'),
    "unreadable": unreadable,
}


@pytest.mark.slow
def test_two_runs_at_once_meet_the_same_damage(study: Path, sound: list[bytes], tmp_path: Path) -> None:
    """Every file of every artefact in another way than the one before, but for what is made last, which is gone."""
    store = tmp_path / "store"
    mr.run(study, tmp_path / "first", store=store, progress=False)
    ways = itertools.cycle(WAYS.values())
    spoilt = set()
    for key, stage in make_plan(load_study(study)).stages.items():
        if stage.kind in {"clean", "evaluate"}:
            Store(store).set_aside(key)
            continue
        for file in sorted(artefact(Store(store), key).iterdir()):
            next(ways)(file)
        spoilt.add(stage.kind)
    assert spoilt >= {"task", "head", "expert", "merge", "correct", "craft"}
    command = [sys.executable, "-m", "mergerisk", "run", str(study), "--store", str(store), "--workers", "1"]
    runs = [
        subprocess.Popen([*command, "--out", str(tmp_path / name)], stderr=subprocess.DEVNULL) for name in "ab"
    ]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == sound
    for key in make_plan(load_study(study)).stages:
        Store(store).get(key)


def test_a_file_of_images_that_becomes_shorter_while_a_run_reads_it(tiny_vit: Path, tmp_path: Path) -> None:
    made = arrays("stripes")
    for index, (image, label, split) in enumerate(zip(made["images"], made["labels"], made["split"], strict=True)):
        folder = tmp_path / "photos" / ("train", "test")[split] / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    path = write_tiny_study(tmp_path, tiny_vit, **SMALL, tasks=["photos"], merging=["weight_averaging"])
    mr.run(path, tmp_path / "sound")
    out = tmp_path / "run"
    store = Store(out / "store")
    events: list[str] = []

    def listen(stage: Stage, event: str) -> None:
        # Every checksum was right when the head was trained.
        if stage.kind == "head" and event == "done" and not events:
            with (artefact(store, stage.inputs["task"]) / "images.rows").open("r+b") as rows:
                rows.truncate(100)
            events.append("cut")
        if event == "damaged":
            events.append(f"{stage.kind} damaged")

    mr.run(path, out, listeners=[of_stages(listen)])
    assert contents(out) == contents(tmp_path / "sound")
    assert events == ["cut", "task damaged"]


def test_a_disk_that_damages_again_and_again_ends_the_run(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    store = Store(out / "store")

    def listen(stage: Stage, event: str) -> None:
        if stage.kind == "task" and event == "done":
            (artefact(store, stage.key) / "manifest.json").write_bytes(b"")

    with pytest.raises(UserError, match=r"again 3 times; the disk is not sound, choose another --store"):
        mr.run(study, out, listeners=[of_stages(listen)])


def test_a_clock_that_jumps_back_changes_nothing(
    study: Path, sound: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour every time that it is asked."""
    asked = []

    class Backwards(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            asked.append(1)
            return datetime(2026, 1, 1, tzinfo=tz) - len(asked) * timedelta(hours=1)

    for module in ("mergerisk.study.executors.attempt", "mergerisk.study.running"):
        monkeypatch.setattr(f"{module}.datetime", Backwards)
    out = tmp_path / "run"
    for cached in (False, True):
        mr.run(study, out, progress=False)
        assert contents(out) == sound
        record = json.loads((out / "run.json").read_text())
        assert 0 <= record["seconds"] < 600, "of what was computed, whatever the clock says"
        assert all(took["cached"] == (took["count"] if cached else 0) for took in record["kinds"].values())
    assert len(asked) > 10


def test_what_is_being_made_again_is_not_handed_out_twice(study: Path) -> None:
    plan: Plan = make_plan(load_study(study))
    task = next(stage for stage in plan.stages.values() if stage.kind == "task")
    cleans = [stage for stage in plan.stages.values() if stage.kind == "clean"]
    needy = [stage for stage in cleans if task.key in stage.inputs.values()][:2]
    done = plan.stages.keys() - {stage.key for stage in needy}
    scheduler = Scheduler(plan.stages, done)
    assert [scheduler.take(), scheduler.take()] == [(needy[0], False), (needy[1], False)]
    scheduler.remake(needy[0], task.key)
    assert scheduler.take() == (task, False)
    scheduler.remake(needy[1], task.key)
    scheduler.finish(task)
    assert [scheduler.take(), scheduler.take()] == [(needy[1], False), (needy[0], False)]
    for stage in needy:
        scheduler.finish(stage)
    assert scheduler.take() is None
