"""Datasets of the hub, against a hub on this machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from mergerisk.errors import UserError
from mergerisk.tasks import load_task, task_source
from mergerisk.tasks.hub_datasets import HUB_TASKS, HubDataset, fetch_dataset, hub_dataset, pinned
from mergerisk.tasks.options import HubOptions
from tests.models.hub_stand_in import COMMIT, hub
from tests.tasks.material import NAMES, table, to_bytes

if TYPE_CHECKING:
    from pathlib import Path

TRAIN, TEST = to_bytes(table([0, 1, 2, 0, 1, 2])), to_bytes(table([2, 1, 0], first=6))
FILES = {
    "README.md": b"words",
    "data/train-00000-of-00002.parquet": TRAIN,
    "data/train-00001-of-00002.parquet": to_bytes(table([0, 1], first=9)),
    "data/test-00000-of-00001.parquet": TEST,
    "data/contrast-00000-of-00001.parquet": b"never read",
    "pictures.zip": b"never read",
}
SEVERAL = {
    "cropped/train-00000-of-00001.parquet": TRAIN,
    "cropped/test-00000-of-00001.parquet": TEST,
    "full/test-00000-of-00001.parquet": b"never read",
}
ABSENT = "http://127.0.0.1:9"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point huggingface_hub to an address and to a cache of its own."""

    def point(address: str) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    point(ABSENT)
    return point


def test_the_table_names_the_eight_tasks() -> None:
    assert list(HUB_TASKS) == ["sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd"]
    for name, dataset in HUB_TASKS.items():
        assert task_source(name).name == name
        assert hub_dataset(name, HubOptions()) == dataset
        assert dataset.revision is None or re.fullmatch(r"[0-9a-f]{7}|[0-9a-f]{40}", dataset.revision)
    # Whole commits need no request, and so no connection.
    assert pinned(HUB_TASKS["cars"], offline=True) == HUB_TASKS["cars"].revision


def test_a_dataset_becomes_a_task(there: Any) -> None:
    with hub({"org/name": FILES}) as (address, requests):
        there(address)
        task = load_task("hub:org/name", limit={"calibration": 0})
        assert (task.name, task.class_names) == ("name", NAMES)
        assert (len(task.train), len(task.test)) == (8, 3)
        assert task.test.labels.tolist() == [2, 1, 0]
        fetched = {request.rpartition("/")[2] for request in requests if request.startswith("GET /datasets")}
        assert fetched == {file.rpartition("/")[2] for file in FILES if re.search("train|test", file)}
        identity = task_source("hub:org/name").identity()
        assert (identity["hub"], identity["commit"]) == ("org/name", COMMIT)
        assert task_source("hub:org/name@main", name="x").identity() == identity
        assert task_source("hub:org/name", size=5).identity() != identity
    there(ABSENT)
    for options in ({"offline": True}, {}):
        assert len(load_task("hub:org/name", **options).test) == 3
        assert task_source("hub:org/name", **options).identity() == identity
    later = task_source("hub:org/name", size=5).pinned(identity)
    assert later.spec == f"hub:org/name@{COMMIT}"
    assert len(later.load().test) == 3


def test_a_whole_commit_that_is_cached_is_not_asked_for(tmp_path: Path) -> None:
    dataset = HubDataset("org/name", COMMIT)
    with hub({"org/name": FILES}) as (address, requests):
        first = fetch_dataset(dataset, HubOptions(), endpoint=address, cache=tmp_path)
        before = len(requests)
        assert fetch_dataset(dataset, HubOptions(), endpoint=address, cache=tmp_path) == first
        assert len(requests) == before
        assert list(first) == sorted(file for file in FILES if re.search("train|test", file))


def test_a_shortened_commit_is_looked_up(tmp_path: Path) -> None:
    short = HubDataset("org/name", COMMIT[:7])
    with hub({"org/name": FILES}) as (address, _):
        assert pinned(short, offline=False, endpoint=address, cache=tmp_path) == COMMIT
        fetch_dataset(short, HubOptions(), endpoint=address, cache=tmp_path)
        with pytest.raises(UserError, match="dataset org/name@fffffff: no commit begins so"):
            pinned(HubDataset("org/name", "fffffff"), offline=False, endpoint=address, cache=tmp_path)
    assert pinned(short, offline=True, cache=tmp_path) == COMMIT


def test_configurations(there: Any) -> None:
    with hub({"org/name": SEVERAL}) as (address, _):
        there(address)
        with pytest.raises(UserError, match="several configurations; say config, one of: cropped, full"):
            load_task("hub:org/name")
        with pytest.raises(UserError, match=r"no config 'croped' \(did you mean 'cropped'\?\)"):
            load_task("hub:org/name", config="croped")
        assert len(load_task("hub:org/name", config="cropped").test) == 3


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("hub:org/unknown", {}, "dataset org/unknown: no such dataset on the hub, or a private one"),
        ("hub:org/name@other", {}, "dataset org/name@other: the hub's repository has no such revision"),
        ("hub:org/gated", {}, "gated; accept its conditions"),
        ("hub:org/csv", {}, "org/csv: no Parquet files"),
        ("hub:name", {}, "written hub:org/name"),
        ("hub:org/name", {"test_split": "tset"}, r"test_split: no split 'tset' \(did you mean 'test'\?\)"),
        ("hub:org/name", {"cofnig": "x"}, r"cofnig: unknown field \(did you mean 'config'\?\)"),
    ],
)
def test_what_is_wrong_is_one_line(there: Any, spec: str, options: dict[str, Any], message: str) -> None:
    repositories = {"org/name": FILES, "org/gated": FILES, "org/csv": {"data.csv": b""}}
    with hub(repositories, gated=("org/gated",)) as (address, _):
        there(address)
        with pytest.raises(UserError, match=message) as caught:
            load_task(spec, **options)
        assert "\n" not in str(caught.value)


def test_offline_the_message_says_what_is_missing(there: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dataset org/name: splits train and test: not in the cache of downloads"):
        load_task("hub:org/name", offline=True)
    with pytest.raises(
        UserError, match=f"dataset {HUB_TASKS['mnist'].name}@77f32.*config mnist, splits train and test"
    ):
        load_task("mnist", offline=True)
    with pytest.raises(UserError, match="dataset org/name: it cannot be downloaded"):
        load_task("hub:org/name")
    with hub({"org/name": FILES}) as (address, requests):
        there(address)
        load_task("hub:org/name")
        asked = len(requests)
        snapshot = next((tmp_path / "cache").rglob("train-00001-of-00002.parquet"))
        snapshot.unlink()
        with pytest.raises(UserError, match=r"org/name: data/train-00001-of-00002\.parquet: not in the cache"):
            load_task("hub:org/name", offline=True)
        for file in snapshot.parent.glob("test*"):
            file.unlink()
        with pytest.raises(
            UserError, match=r"org/name: split test \(if there is none, say train_split: train\): not in"
        ):
            load_task("hub:org/name", offline=True)
        assert len(requests) == asked
        assert len(load_task("hub:org/name").test) == 3


def test_a_broken_transfer_leaves_no_half_dataset(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library waits between its attempts
    with hub({"org/name": FILES}, dropping=("data/train-00001-of-00002.parquet",)) as (address, _):
        there(address)
        with pytest.raises(UserError, match="cannot be downloaded"):
            load_task("hub:org/name")
    with hub({"org/name": FILES}) as (address, _):
        there(address)
        assert len(load_task("hub:org/name").test) == 3
