"""Studies over tasks whose images are decoded into the store and read back by rows."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

import mergerisk as mr
from mergerisk.store import Store
from mergerisk.study.executors.attempt import make_artefact
from mergerisk.study.kinds.load_task import LoadTask
from mergerisk.study.workbench import Compute, Workbench
from mergerisk.tasks import LazyImages, task_source
from tests.tasks.material import table, write_parquet
from tests.tiny import STUDY, arrays, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def as_folder(folder: Path, kind: str) -> Path:
    """The tiny task as a folder of PNGs, in the order of its array."""
    content = arrays(kind)
    names = ["train", "test"]
    for number, (image, label, split) in enumerate(
        zip(content["images"], content["labels"], content["split"], strict=True)
    ):
        place = folder / names[split] / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:04d}.png")
    return folder


def test_a_task_stage_decodes_straight_into_the_store(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "stripes", "stripes")
    (folder / "test" / "1" / "bad.png").write_bytes(b"")
    source = task_source(str(folder), name="mine", limit={"train": 30}, size=12)
    stage = LoadTask(label=source.name, identity=source.identity(), source=source)
    make_artefact(stage, Workbench(Store(tmp_path / "store"), Compute()))
    files = sorted(file.name for file in (tmp_path / "store" / "objects").rglob("*") if file.is_file())
    assert files == ["arrays.safetensors", "images.rows", "manifest.json"]
    task = Workbench(Store(tmp_path / "store"), Compute()).task(stage.result)
    direct = source.load()
    assert task.name == "mine"
    assert isinstance(task.test.images, LazyImages)
    for split in ("train", "test", "calibration"):
        assert torch.equal(getattr(task, split).images[:], getattr(direct, split).images[:])
        assert torch.equal(getattr(task, split).labels, getattr(direct, split).labels)
    assert len(task.train) == 30
    assert [item.name for item in task.skipped] == ["test/1/bad.png"]


def test_artefacts_of_whole_tasks_keep_their_keys_and_form(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays("stripes"))
    source = task_source(str(tmp_path / "a.npz"))
    stage = LoadTask(label=source.name, identity=source.identity(), source=source)
    store = Store(tmp_path / "store")
    make_artefact(stage, Workbench(store, Compute()))
    found = store.get(stage.key)
    assert found.arrays.keys() == {"images", "labels", "split"}
    assert found.info == {"class_names": ["0", "1", "2"], "name": "a"}


def test_a_large_npz_is_read_by_rows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", **arrays("stripes"))
    source = task_source(str(tmp_path / "a.npz"))
    expected = source.load()
    monkeypatch.setattr("mergerisk.tasks.from_arrays._TENSOR_BYTES", 1000)
    stage = LoadTask(label=source.name, identity=source.identity(), source=source)
    store = Store(tmp_path / "store")
    make_artefact(stage, Workbench(store, Compute()))
    assert store.get(stage.key).rows["images"].shape == (90, 16, 16, 3)
    task = Workbench(store, Compute()).task(stage.result)
    for split in ("train", "test", "calibration"):
        assert isinstance(getattr(task, split).images, LazyImages)
        assert torch.equal(getattr(task, split).images[:], getattr(expected, split).images)
        assert torch.equal(getattr(task, split).labels, getattr(expected, split).labels)


def as_parquet(folder: Path, kind: str) -> Path:
    """The tiny task as Parquet files, in the order of its array."""
    content = arrays(kind)
    for code, split in enumerate(("train", "test")):
        chosen = content["split"] == code
        images = [png(image) for image in content["images"][chosen]]
        made = table(content["labels"][chosen].tolist(), images, names=("0", "1", "2"))
        write_parquet(folder / f"{split}.parquet", made, rows=7)
    return folder


def png(image: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_study_over_files_says_what_one_over_arrays_says(tmp_path: Path, tiny_vit: Path) -> None:
    changes = {"merging": STUDY["merging"][:4], "attacks": ["fgsm"], "images_per_task": 9}
    whole = mr.run(write_tiny_study(tmp_path / "npz", tiny_vit, **changes), tmp_path / "a")
    folders = [str(as_parquet(tmp_path / kind, kind)) for kind in ("stripes", "blobs")]
    lazy = mr.run(write_tiny_study(tmp_path / "files", tiny_vit, **changes, tasks=folders), tmp_path / "b")
    assert len(list((tmp_path / "b" / "store" / "objects").rglob("images.rows"))) == 2
    pd.testing.assert_frame_equal(lazy.outcomes, whole.outcomes)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "a" / "clean.parquet"), pd.read_parquet(tmp_path / "b" / "clean.parquet")
    )
    examples = [(tmp_path / run / "examples.safetensors").read_bytes() for run in "ab"]
    assert examples[0] == examples[1]
