"""A store in a bucket, against a server that speaks S3: shared, crash-safe, and damage is found there too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pytest

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.store import DamagedArtefactError, Store, content_key, open_store
from mergerisk.store.mirrored import MirroredStore, bucket_named
from mergerisk.study.executors import on_ray
from mergerisk.study.keyed import Input
from mergerisk.study.stage import Result
from tests.store.buckets import new_bucket, serving
from tests.study.test_ray_crew import FakeRay
from tests.study.test_ray_crew import run as run_on
from tests.study.toy_stages import Toy
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mergerisk.study.workbench import Workbench

RECIPE = {"stage": "craft", "number": 1}
KEY = content_key(RECIPE)
ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 1, 2])}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest) -> str:  # noqa: ARG001
    return new_bucket(request.node.name)


def put(store: Store, number: float = 0.0, **provenance: Any) -> None:
    portions = [np.full((2, 3), number), np.ones((1, 3))]
    spooled = {"images": store.spool(KEY, portions)}
    arrays = {name: array + np.asarray(number, array.dtype) for name, array in ARRAYS.items()}
    store.put(KEY, arrays, recipe=RECIPE, provenance=provenance, compressed=["b"], spooled=spooled)


def test_what_one_machine_makes_another_reads(bucket: str, tmp_path: Path) -> None:
    here, there = open_store(tmp_path / "here", bucket), open_store(tmp_path / "there", bucket)
    put(here)
    assert open_store(tmp_path / "third", bucket).has(KEY)
    found = MirroredStore(tmp_path / "there", bucket).get(KEY)
    assert {name: array.tolist() for name, array in found.arrays.items()} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }
    assert found.rows["images"][1:].tolist() == [[0.0] * 3, [1.0] * 3]
    # What a worker opens knows by its folder that there is a bucket.
    assert isinstance(open_store(tmp_path / "here"), MirroredStore)
    with pytest.raises(UserError, match="holds copies of"):
        open_store(tmp_path / "here", f"{bucket}/other")
    del there


def test_of_two_that_make_the_same_the_first_counts_on_both(bucket: str, tmp_path: Path) -> None:
    """Both have listed the bucket before either publishes; results differ in last digits, as processors' do."""
    first, second = (MirroredStore(tmp_path / name, bucket) for name in ("first", "second"))
    put(first, 1.0, label="first")
    put(second, 2.0, label="second")
    assert [store.get(KEY).provenance["label"] for store in (first, second)] == ["first", "first"]
    assert second.get(KEY).arrays["b"].tolist() == [2, 2, 3]


def test_how_large_tensors_are_is_asked_once_and_fetches_none(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, other = (MirroredStore(tmp_path / name, bucket) for name in ("maker", "other"))
    assert other.tensor_bytes(KEY) == 0  # not there yet
    put(maker)
    ask, asked = other._bytes, []
    monkeypatch.setattr(other, "_bytes", lambda key: (asked.append(key), ask(key))[1])
    assert {other.tensor_bytes(KEY) for _ in range(3)} == {Store(maker.root).tensor_bytes(KEY)}
    assert asked == [KEY]
    assert not other.folder(KEY).exists()


@pytest.mark.parametrize("how", ["changed", "gone", "manifest"])
def test_damage_in_the_bucket_is_found_moved_aside_and_made_again(bucket: str, tmp_path: Path, how: str) -> None:
    maker = MirroredStore(tmp_path / "maker", bucket)
    put(maker)
    files, place = maker._files, maker._place(KEY)
    payload = next(path for path in files.find(place) if not path.endswith("manifest.json"))
    spoiled = f"{place}/manifest.json" if how == "manifest" else payload
    content = files.cat_file(spoiled)
    if how == "gone":
        files.rm_file(spoiled)
    else:
        files.pipe_file(spoiled, bytes([content[0] ^ 1]) + content[1:])
    reader = MirroredStore(tmp_path / "reader", bucket)
    with pytest.raises(DamagedArtefactError):
        reader.get(KEY)
    assert not reader.has(KEY)
    assert files.find(f"{maker._top}/damaged")
    put(reader)
    np.testing.assert_array_equal(MirroredStore(tmp_path / "third", bucket).get(KEY).arrays["a"], ARRAYS["a"])


def test_a_writer_killed_before_the_manifest_leaves_nothing(bucket: str, tmp_path: Path) -> None:
    maker = MirroredStore(tmp_path / "maker", bucket)
    put(maker)
    maker._files.rm_file(f"{maker._place(KEY)}/manifest.json")  # all but the last step
    other = MirroredStore(tmp_path / "other", bucket)
    assert not other.has(KEY)
    put(other)
    assert MirroredStore(tmp_path / "third", bucket).get(KEY).arrays["b"].tolist() == [1, 1, 2]


def test_what_nothing_needs_goes_from_both(bucket: str, tmp_path: Path) -> None:
    store = MirroredStore(tmp_path / "store", bucket)
    put(store)
    store.remove(KEY)
    assert not store.has(KEY)
    assert store._files.find(store._top) == []
    store.remove(KEY)


def test_copies_that_are_damaged_are_fetched_again(bucket: str, tmp_path: Path) -> None:
    store = MirroredStore(tmp_path / "store", bucket)
    put(store)
    (store.folder(KEY) / "arrays.safetensors").write_bytes(b"")
    with pytest.raises(DamagedArtefactError):
        store.get(KEY)
    assert store.get(KEY).arrays["b"].tolist() == [1, 1, 2]


def test_a_bucket_that_is_not_there_is_a_line(server: str, tmp_path: Path) -> None:  # noqa: ARG001
    with pytest.raises(UserError, match=r"^s3://no-such-bucket/x: the bucket does not answer as it should: "):
        open_store(tmp_path, "s3://no-such-bucket/x")
    with pytest.raises(UserError, match=r"^nonsense://x: "):
        open_store(tmp_path, "nonsense://x")


def test_whatever_computes_takes_a_bucket_for_its_store(server: str, tmp_path: Path, tiny_study: Path) -> None:  # noqa: ARG001
    """That is: asks for it, and does not make a folder of its own instead."""
    pytest.importorskip("optuna")
    asked: dict[str, Any] = {"store": "s3://no-such-bucket/x"}
    quiet: dict[str, Any] = asked | {"progress": False}
    for compute in (
        lambda: mr.run(tiny_study, tmp_path / "run", **quiet),
        lambda: mr.recommend(tiny_study, tmp_path / "recommended", time=None, trials=1, **quiet),
        lambda: mr.plan(tiny_study, tmp_path / "planned", **asked),
    ):
        with pytest.raises(UserError, match=r"^s3://no-such-bucket/x: the bucket does not answer"):
            compute()


def test_copies_that_the_bucket_lacks_are_sent(bucket: str, tmp_path: Path) -> None:
    """As where a folder was a run's own before, or whoever published was killed between the two places."""
    put(Store(tmp_path / "here"))
    here, there = open_store(tmp_path / "here", bucket), MirroredStore(tmp_path / "there", bucket)
    here.share([KEY])
    assert there.is_published(KEY)
    assert there.get(KEY).arrays["b"].tolist() == [1, 1, 2]
    here.remove(KEY)
    put(Store(tmp_path / "spoiled"))
    spoiled = open_store(tmp_path / "spoiled", bucket)
    (spoiled.folder(KEY) / "arrays.safetensors").write_bytes(b"")
    spoiled.share([KEY])
    assert not spoiled.is_published(KEY)
    assert not spoiled._files.find(f"{spoiled._top}/objects")


def test_nodes_that_share_the_bucket_alone_see_at_once_what_others_make(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every task is made on another node than the one before; what is spoilt on the way to the second is sent again
    by the first, which still has it."""
    first = Toy(label="first", number=7)
    second = Doubles(label="second", needs=(Input(first.key),))
    store = open_store(tmp_path / "run", bucket)

    class Nodes(FakeRay):
        def get(self, task: Any) -> Any:
            at = len(self.asked) % 2
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"node {at}"))
            on_ray._bench.cache_clear()
            if len(self.asked) == 2:
                assert isinstance(store, MirroredStore)
                (payload,) = (
                    path for path in store._files.find(store._place(first.key)) if "manifest" not in path
                )
                store._files.pipe_file(payload, b"spoilt")
            return super().get(task)

    told = run_on(Nodes([{"CPU": 1}]), store, [second], needed=[first])
    again = ["started first", "done first", "started second"]
    assert told == [*again, "damaged first", *again, "done second"]
    assert not (store.folder(first.key)).exists(), "whoever plans fetches what it reads, and nothing else"
    assert store.get(second.key).arrays["number"].tolist() == [14]
    assert sorted(path.name for path in tmp_path.glob("node */mergerisk/buckets/*/objects/*/*")) == sorted(
        [first.key, first.key, second.key]
    )


@dataclass(frozen=True, kw_only=True)
class Doubles(Toy):
    """Reads the number of what it needs."""

    kind: ClassVar[str] = "doubles"

    def run(self, bench: Workbench) -> Result:
        (read,) = self.needs
        return Result({"number": 2 * bench.artefact(read.key).arrays["number"]})


def test_a_node_that_asks_another_server_is_found_out(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mergerisk.study.executors.on_ray.time.sleep", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    ray = FakeRay([{"CPU": 1}])
    real = ray.remote
    ray.remote = lambda function: real(  # type: ignore[method-assign]
        lambda packed, order: function(packed, replace(order, bucket=f"{bucket}/other"))
    )
    with pytest.raises(UserError, match=f"does not see the store at {bucket}; AWS_ENDPOINT_URL and what else"):
        run_on(ray, open_store(tmp_path / "run", bucket), [Toy(label="toy")])


@pytest.mark.parametrize(
    ("store", "url"),
    [("s3://b/p", "s3://b/p"), ("s3:/b/p", "s3://b/p"), ("runs/a", None), ("/runs/a:/b", None), ("c:/x", None)],
)
def test_buckets_are_told_from_folders(store: str, url: str | None) -> None:
    assert bucket_named(store) == url


@pytest.mark.slow
def test_a_study_on_two_machines_shares_its_bucket(bucket: str, tmp_path: Path, tiny_vit: Path) -> None:
    study = write_tiny_study(tmp_path, tiny_vit, images_per_task=4, attacks=["fgsm"], merging=["ties"])
    runs = tmp_path / "one", tmp_path / "two"
    for run, workers in zip(runs, (2, 1), strict=True):
        mr.run(study, run, store=bucket, workers=workers, progress=False)
    one, two = (pd.read_parquet(run / "outcomes.parquet") for run in runs)
    pd.testing.assert_frame_equal(one, two)
    kinds = mr.study.load_run(runs[1]).record["kinds"].values()
    assert all(took["cached"] == took["count"] for took in kinds)  # the second computed nothing
