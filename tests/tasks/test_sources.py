"""Folders, Parquet files and ``.npz`` files with options: what a task takes of them, and every mistake's line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.tasks import Skipped, Task, load_task, load_tasks, task_source
from mergerisk.tasks import streaming as module
from tests.tasks.material import NAMES, encoded, pixels, table, write_folder, write_parquet
from tests.tiny import arrays


def pictures(task: Task, split: str) -> dict[bytes, int]:
    """What a split shows, as bytes → label."""
    found = getattr(task, split)
    rows = (found.images[:] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return {row.tobytes(): label for row, label in zip(rows, found.labels.tolist(), strict=True)}


def expected(numbers: range, per_class: int) -> dict[bytes, int]:
    return {pixels(number).tobytes(): (number - numbers.start) // per_class for number in numbers}


def one_line(spec: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        task_source(str(spec), **options).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Folders


def test_a_folder_of_splits(tmp_path: Path) -> None:
    task = load_task(str(write_folder(tmp_path / "fruit", {"train": 8, "test": 4, "val": 2})))
    assert task.name == "fruit"
    assert task.class_names == NAMES
    assert pictures(task, "train") == expected(range(24), 8)
    assert pictures(task, "test") == expected(range(24, 36), 4)
    assert pictures(task, "calibration") == expected(range(36, 42), 2)
    assert task.skipped == ()


@pytest.mark.parametrize("name", ["Train", "TRAIN"])
def test_splits_in_other_letters(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, {name: 4, "Test": 2, "calibration": 1})
    assert len(load_task(str(tmp_path)).calibration) == 3


def test_calibration_images_are_held_out_of_training_images(tmp_path: Path) -> None:
    task = load_task(str(write_folder(tmp_path, {"train": 8, "test": 4})))
    assert (len(task.train), len(task.calibration), len(task.test)) == (18, 6, 12)
    assert torch.bincount(task.calibration.labels).tolist() == [2, 2, 2]
    assert pictures(task, "train") | pictures(task, "calibration") == expected(range(24), 8)


def test_a_folder_without_splits_is_divided_by_class_and_seed(tmp_path: Path) -> None:
    write_folder(tmp_path, {"": 8})
    task = load_task(str(tmp_path))
    assert torch.bincount(task.test.labels).tolist() == [4, 4, 4]
    assert (len(task.train), len(task.calibration)) == (9, 3)
    every = pictures(task, "train") | pictures(task, "calibration") | pictures(task, "test")
    assert every == expected(range(24), 8)
    assert pictures(load_task(str(tmp_path)), "test") == pictures(task, "test")
    assert pictures(load_task(str(tmp_path), seed=1), "test") != pictures(task, "test")
    quarter = load_task(str(tmp_path), test_share=0.25)
    assert pictures(quarter, "test").items() <= pictures(task, "test").items()
    assert torch.bincount(quarter.test.labels).tolist() == [2, 2, 2]
    whole = load_task(str(tmp_path), test_share=1.0)
    assert (len(whole.train), len(whole.calibration), len(whole.test)) == (0, 0, 24)


def test_a_further_image_moves_few_others(tmp_path: Path) -> None:
    write_folder(tmp_path, {"": 40})
    before = pictures(load_task(str(tmp_path)), "test")
    (tmp_path / "apple" / "new.png").write_bytes(encoded(999))
    after = pictures(load_task(str(tmp_path)), "test")
    assert len(before.keys() - after.keys()) <= 1


def test_only_test_images(tmp_path: Path) -> None:
    task = load_task(str(write_folder(tmp_path, {"test": 3})))
    assert (len(task.train), len(task.calibration), len(task.test)) == (0, 0, 9)


def test_classes_in_their_order(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 4, "test": 4})
    (tmp_path / "train" / "empty").mkdir()  # of no concern to those who do not ask for it
    task = load_task(str(tmp_path), classes=["cloud", "apple"])
    assert task.class_names == ("cloud", "apple")
    assert pictures(task, "test") == {
        **{pixels(number).tobytes(): 1 for number in range(12, 16)},
        **{pixels(number).tobytes(): 0 for number in range(20, 24)},
    }


def test_limits_are_balanced_and_decided_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"train": 20, "test": 10})
    decoded = []
    decode = module.decode
    monkeypatch.setattr(module, "decode", lambda *args, **kw: decoded.append(args[1]) or decode(*args, **kw))
    task = load_task(str(tmp_path), limit={"train": 9, "test": 7, "calibration": 3})
    assert (len(task.train), len(task.test), len(task.calibration)) == (9, 7, 3)
    assert len(decoded) == 19
    assert torch.bincount(task.train.labels).tolist() == [3, 3, 3]
    assert sorted(torch.bincount(task.test.labels).tolist()) == [2, 2, 3]
    fewer = load_task(str(tmp_path), limit={"test": 4})
    assert pictures(fewer, "test").items() <= pictures(task, "test").items()
    assert pictures(load_task(str(tmp_path), limit={"test": 7}, seed=1), "test") != pictures(task, "test")
    assert len(load_task(str(tmp_path), limit={"test": 10**6}).test) == 30
    none = load_task(str(tmp_path), limit={"train": 0, "calibration": 0})
    assert (len(none.train), len(none.calibration), len(none.test)) == (0, 0, 30)
    only_calibration = load_task(str(tmp_path), limit={"train": 0})
    assert (len(only_calibration.train), len(only_calibration.calibration)) == (0, 15)


def test_images_of_several_sizes_become_squares(tmp_path: Path) -> None:
    write_folder(tmp_path, {"test": 2})
    assert load_task(str(tmp_path)).test.images.shape == (6, 3, 8, 8)
    assert load_task(str(tmp_path), size=5).test.images.shape == (6, 3, 5, 5)
    (tmp_path / "test" / "bear" / "wide.png").write_bytes(encoded(7, 8, 12))
    assert load_task(str(tmp_path)).test.images.shape == (7, 3, 224, 224)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(encoded(7, 8, 12))
    assert load_task(str(tmp_path)).test.images.shape == (7, 3, 8, 12)


def test_the_size_of_what_cannot_be_read_or_is_not_taken_is_of_no_concern(tmp_path: Path) -> None:
    write_folder(tmp_path, {"test": 2})
    whole = encoded(7, 64, 48)
    (tmp_path / "test" / "bear" / "cut.png").write_bytes(whole[: len(whole) // 2])  # its header says 64 × 48
    task = load_task(str(tmp_path))
    assert task.test.images.shape == (6, 3, 8, 8)
    assert [item.name for item in task.skipped] == ["test/bear/cut.png"]
    (tmp_path / "test" / "cloud" / "large.png").write_bytes(whole)
    assert load_task(str(tmp_path)).test.images.shape == (7, 3, 224, 224)
    assert load_task(str(tmp_path), classes=["apple", "bear"]).test.images.shape == (4, 3, 8, 8)


def test_what_cannot_be_read_is_skipped_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 4, "test": 2})
    (tmp_path / "test" / "bear" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "apple" / "cut.png").write_bytes(encoded(5, 64, 64)[:300])
    (tmp_path / "README").write_text("about")
    task = load_task(str(tmp_path), size=8)
    assert (len(task.train) + len(task.calibration), len(task.test)) == (12, 6)
    reasons = {item.name: item.reason for item in task.skipped}
    assert reasons.keys() == {"README", "test/bear/notes.txt", "train/apple/cut.png"}
    assert reasons["README"] == "beside the class folders"
    assert "not one of PNG" in reasons["test/bear/notes.txt"]
    assert all(isinstance(item, Skipped) for item in task.skipped)


@pytest.mark.parametrize("threads", [1, 3])
def test_neither_threads_nor_memory_change_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    write_folder(tmp_path, {"train": 40, "test": 30})
    (tmp_path / "test" / "bear" / "bad.png").write_bytes(b"")
    source = task_source(str(tmp_path), size=6)
    reference = source.stream(2).collect()
    monkeypatch.setattr(module, "_IN_MEMORY", 0)
    monkeypatch.setattr(module, "_PORTION_BYTES", 5 * 3 * 6 * 6)
    other = source.stream(threads).collect()
    assert not isinstance(other.images, np.ndarray)
    assert np.array_equal(other.images[:], reference.images)
    assert np.array_equal(other.labels, reference.labels)
    assert np.array_equal(other.split, reference.split)
    assert other.skipped == reference.skipped


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda p: (p / ".hidden").touch(), {}, "the folder holds no files; make one folder of images per class"),
        (lambda p: (p / "a.png").write_bytes(encoded(0)), {}, "images, but no class folders"),
        (lambda p: write_folder(p, {"train": 2, "fog": 2}), {}, "fog, train all hold folders 'apple' and 'bear'"),
        (lambda p: write_folder(p, {"": 2}, ("cat",)), {}, "one class only, cat"),
        (lambda p: (write_folder(p, {"": 2}), (p / "empty").mkdir()), {}, "class 'empty' has no images"),
        (
            lambda p: (write_folder(p, {"train": 1, "test": 1}), write_folder(p, {"test": 1}, ("dog",))),
            {},
            "class 'dog' is in test/, not in train/",
        ),
        (
            lambda p: (write_folder(p, {"train": 1, "test": 1}), write_folder(p, {"val": 1}, ("dog",))),
            {},
            "class 'dog' is in val/, not in train/",
        ),
        (lambda p: write_folder(p, {"train": 1, "test": 1, "extra": 1}), {}, "folder 'extra' stands beside"),
        (lambda p: write_folder(p, {"test": 1, "val": 1, "calibration": 1}), {}, "several splits could be meant: calibration, val; say calibration_split"),
        (lambda p: write_folder(p, {"": 2}), {"classes": ["appel", "bear"]}, "no class 'appel' (did you mean 'apple'?)"),
        (
            lambda p: (write_folder(p, {"test": 1}), (p / "test/bear/000.png").write_bytes(b"?")),
            {},
            "class 'bear' has no image that can be read; test/bear/000.png: not one of",
        ),
        (
            lambda p: (write_folder(p, {"test": 1}), [f.write_bytes(b"?") for f in p.rglob("*.png")]),
            {},
            "has no image that can be read",
        ),
    ],
)  # fmt: skip
def test_a_folders_mistakes(tmp_path: Path, make: Any, options: dict[str, Any], message: str) -> None:
    make(tmp_path)
    assert message in (said := one_line(tmp_path, **options))
    assert str(tmp_path) in said


def test_a_huge_image_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mergerisk.tasks.decoding.MAX_PIXELS", 63)
    write_folder(tmp_path, {"test": 1})
    assert "test/apple/000.png: 8 × 8 pixels; at most" in one_line(tmp_path)


# Parquet


@pytest.mark.parametrize("struct", [True, False])
def test_a_parquet_file_is_divided(tmp_path: Path, struct: bool) -> None:
    labels = [0, 1, 2, 2, 1, 0, 0, 1, 2, 0, 1, 2]
    task = load_task(str(write_parquet(tmp_path / "some.parquet", table(labels, struct=struct))))
    assert (task.name, task.class_names) == ("some", NAMES)
    assert torch.bincount(task.test.labels).tolist() == [2, 2, 2]
    every = pictures(task, "train") | pictures(task, "calibration") | pictures(task, "test")
    assert every == {pixels(number).tobytes(): label for number, label in enumerate(labels)}


def test_a_folder_of_parquet_files_in_the_hubs_layout(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", table([0, 1, 2, 0], first=0))
    write_parquet(tmp_path / "data" / "train-00001-of-00002-0a1b.parquet", table([1, 2, 0, 1], first=4))
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", table([2, 1, 0], first=8))
    write_parquet(tmp_path / "data" / "contrast-00000-of-00001.parquet", table([2, 1, 0], first=11))
    task = load_task(str(tmp_path), limit={"calibration": 0})
    assert pictures(task, "train") == {
        pixels(n).tobytes(): label for n, label in enumerate([0, 1, 2, 0, 1, 2, 0, 1])
    }
    assert pictures(task, "test") == {pixels(8 + n).tobytes(): label for n, label in enumerate([2, 1, 0])}
    other = load_task(str(tmp_path), test_split="contrast", calibration_split="test")
    assert set(pictures(other, "test")) == {pixels(n).tobytes() for n in (11, 12, 13)}
    assert set(pictures(other, "calibration")) == {pixels(n).tobytes() for n in (8, 9, 10)}


@pytest.mark.parametrize("file", ["train/0000.parquet", "train.parquet", "default/train/0001.parquet"])
def test_other_layouts(tmp_path: Path, file: str) -> None:
    write_parquet(tmp_path / file, table([0, 1, 2, 0]))
    write_parquet(tmp_path / file.replace("train", "test"), table([0, 1, 2], first=9))
    assert len(load_task(str(tmp_path)).test) == 3


@pytest.mark.parametrize("kind", ["plain", "dictionary"])
def test_labels_as_text(tmp_path: Path, kind: str) -> None:
    labels = pa.array(["dog", "cat", "emu", "cat", "dog", "emu"])
    made = table([0] * 6, names=None)
    made = made.set_column(1, "label", labels.dictionary_encode() if kind == "dictionary" else labels)
    task = load_task(str(write_parquet(tmp_path / "a.parquet", made)), test_share=1.0)
    assert task.class_names == ("cat", "dog", "emu")
    assert task.test.labels.tolist() == [1, 0, 2, 0, 1, 2]
    assert load_task(str(tmp_path / "a.parquet"), classes=["emu", "cat"], test_share=1.0).test.labels.tolist() == [
        1,
        0,
        1,
        0,
    ]


def test_numbers_without_names(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", table([0, 2, 1, 2], names=None))
    assert load_task(str(path)).class_names == ("0", "1", "2")


def test_columns_by_name_and_rows_without_an_image(tmp_path: Path) -> None:
    images = [encoded(0), None, b"broken", encoded(3), encoded(4), encoded(5)]
    made = table([0, 1, 2, 0, 1, 2], images, columns=("img", "fine"), names=None)
    made = made.append_column("label", pa.array([1.5] * 6)).append_column("mask", made.column("img"))
    path = write_parquet(tmp_path / "a.parquet", made, rows=2)
    task = load_task(str(path), image_column="img", label_column="fine", test_share=1.0)
    assert task.test.labels.tolist() == [0, 0, 1, 2]
    assert [item.name for item in task.skipped] == ["a.parquet, row 1", "a.parquet, row 2"]
    assert task.skipped[0].reason == "no image in the row"
    assert "several columns could be the image's; say image_column, one of: img, mask" in one_line(path)
    said = one_line(path, image_column="img")
    assert "labels are integers or text" in said
    assert "label_column: no column 'fin' (did you mean 'fine'?)" in one_line(
        path, image_column="img", label_column="fin"
    )
    assert "not encoded images" in one_line(path, image_column="fine")


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (table([0, 1, 3]), {}, "row 2: label 3 is out of range; labels are 0 to 2"),
        (table([0, 1, -1]), {}, "label -1 is out of range"),
        (table([0, None, 1]), {}, "column 'label' lacks 1 labels"),
        (table([0, 1], names=None, columns=("image", "kind")), {}, "no column is the label's; say label_column"),
        (table([0, 0, 0], names=None), {}, "one class only, 0"),
        (table([0, 1, 2]), {"classes": ["apple", "bare"]}, "no class 'bare'"),
        (table([0, 1, 1]), {"classes": ["apple", "cloud"]}, "class 'cloud' has no images"),
        (table([0, 1, 2]), {"train_split": "trian"}, "train_split: no split 'trian'"),
        (table([0, 1, 2]), {"size": 8, "sise": 8}, "sise: unknown field (did you mean 'size'?)"),
    ],
)
def test_a_parquet_files_mistakes(tmp_path: Path, made: pa.Table, options: dict[str, Any], message: str) -> None:
    assert message in one_line(write_parquet(tmp_path / "a.parquet", made), **options)


def test_parquet_files_that_disagree(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", table([0, 1, 2]))
    write_parquet(tmp_path / "test.parquet", table([0, 1], names=("apple", "bear")))
    assert "has other classes than" in one_line(tmp_path)
    texts = [
        table([0] * 3, names=None).set_column(1, "label", pa.array(values))
        for values in (["a", "b", "a"], ["a", "c", "a"])
    ]
    for name, made in zip(("train", "test"), texts, strict=True):
        write_parquet(tmp_path / f"{name}.parquet", made)
    assert "class 'c' has no training images" in one_line(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    assert "train.parquet: cannot be read as Parquet" in one_line(tmp_path)
    for name in ("train", "test"):
        (tmp_path / f"{name}.parquet").unlink()
    write_parquet(tmp_path / "one.parquet", table([0, 1, 2]))
    write_parquet(tmp_path / "two.parquet", table([0, 1, 2]))
    assert "no split 'test' among one, two; say test_split" in one_line(tmp_path)


def test_only_chosen_rows_are_read_a_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    path = write_parquet(tmp_path / "a.parquet", table([0] * 10 + [1] * 10 + [2] * 10), rows=5)
    groups: list[int] = []
    iter_batches = pq.ParquetFile.iter_batches

    def counted(self: Any, size: int, row_groups: list[int], *args: Any, **options: Any) -> Any:
        groups.extend(row_groups)
        assert size <= 64
        return iter_batches(self, size, row_groups, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    task = load_task(str(path), classes=["apple", "cloud"], test_share=1.0, size=8)
    assert len(task.test) == 20
    assert groups == [0, 1, 4, 5]


# .npz files with options, names, identities


def test_an_npz_with_options(tmp_path: Path) -> None:
    content = arrays("stripes")
    np.savez(tmp_path / "a.npz", **content, class_names=np.array(["x", "y", "z"]))
    spec = str(tmp_path / "a.npz")
    assert load_task(spec, name="mine").name == "mine"
    assert isinstance(load_task(spec, name="mine").test.images, torch.Tensor)
    task = load_task(spec, classes=["z", "x"], limit={"test": 4}, size=8)
    assert torch.bincount(task.test.labels).tolist() == [2, 2]
    image = Image.fromarray(content["images"][0]).resize((8, 8), Image.Resampling.BICUBIC)
    assert np.asarray(image).tobytes() in pictures(task, "train") | pictures(task, "calibration")
    assert task_source(spec, name="mine").identity() == task_source(spec).identity()
    assert task_source(spec).identity().keys() == {"sha256"}
    assert task_source(spec, limit={"test": 4}).identity() != task_source(spec).identity()


def test_names_suites_and_what_is_unknown(tmp_path: Path) -> None:
    write_folder(tmp_path / "fruit", {"test": 2})
    write_parquet(tmp_path / "some.parquet", table([0, 1, 2]))
    tasks = load_tasks(str(tmp_path / "fruit"), str(tmp_path / "some.parquet"))
    assert list(tasks) == ["fruit", "some"]
    assert list(mr.load_tasks(str(tmp_path / "fruit"))) == ["fruit"]
    assert mr.load_task(str(tmp_path / "fruit"), name="f", size=4).name == "f"
    assert "no such file or folder" in one_line(tmp_path / "nothing" / "here")
    assert "no such file" in one_line("x/y.parquet")
    (tmp_path / "a.csv").write_text("")
    assert "not a task's file" in one_line(tmp_path / "a.csv")
    assert "unknown task 'gtsr' (did you mean 'gtsrb'?)" in one_line("gtsr")
    assert "size: unknown field" in one_line("digits", size=8)
    assert "limit: trian: unknown field (did you mean 'train'?)" in one_line(
        tmp_path / "fruit", limit={"trian": 1}
    )
    assert "test_share: input should be less than or equal to 1" in one_line(tmp_path / "fruit", test_share=2)
    assert "name at least two classes, each once" in one_line(tmp_path / "fruit", classes=["apple", "apple"])


def test_an_identity_is_of_content_and_options(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "first", {"train": 4, "test": 2})
    second = Path(shutil.copytree(first, tmp_path / "second"))
    identity = task_source(str(first)).identity()
    json.dumps(identity)
    assert task_source(str(second), name="other").identity() == identity
    assert task_source(str(first), seed=1).identity() != identity
    assert task_source(str(first), classes=["bear", "apple"]).identity() != identity
    file = second / "train" / "bear" / "000.png"
    times = file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert task_source(str(second)).identity() != identity
    shutil.copy(first / "train" / "bear" / "000.png", file)
    assert task_source(str(second)).identity() == identity
    file.rename(file.with_name("renamed.png"))
    assert task_source(str(second)).identity() != identity
    write_parquet(tmp_path / "a.parquet", table([0, 1, 2]))
    write_parquet(tmp_path / "b.parquet", table([0, 1, 1]))
    parquet = [task_source(str(tmp_path / f"{name}.parquet")).identity() for name in "ab"]
    assert parquet[0]["parquet"][0][0] == "a.parquet"
    assert parquet[0] != parquet[1]


def test_a_source_travels_to_another_process(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 4, "test": 2})
    source = task_source(str(tmp_path), name="x", limit={"test": 3}, classes=["cloud", "bear"], size=5, seed=2)
    assert pickle.loads(pickle.dumps(source)) == source  # its own
    assert hash(pickle.loads(pickle.dumps(source))) == hash(source)
    assert task_source(str(tmp_path), name="x", size=6) != source


def test_a_check_knows_classes_and_counts(tmp_path: Path) -> None:
    write_folder(tmp_path / "fruit", {"train": 8, "test": 2})
    found = task_source(str(tmp_path / "fruit"), size=10, limit={"train": 9}).check()
    assert (found.class_names, found.train, found.calibration, found.test) == (NAMES, 9, 6, 6)
    assert found.stored_bytes == 21 * 10 * 10 * 3
    starter = task_source("digits").check()
    rendered = task_source("digits").load()
    assert starter.class_names == rendered.class_names
    counts = len(rendered.train), len(rendered.calibration), len(rendered.test)
    assert (starter.train, starter.calibration, starter.test) == counts


@pytest.mark.parametrize(
    ("name", "message"),
    [(b"x\ny.png", r"'apple/x\\ny.png': its name has control"), (b"\xff.png", "'apple/.udcff.png': its name has")],
)
def test_names_that_cannot_stand_on_one_line(tmp_path: Path, name: bytes, message: str) -> None:
    write_folder(tmp_path / "fruit", {"": 2})
    folder = tmp_path / "fruit" / "apple"
    (folder / "000.png").rename(folder / os.fsdecode(name))
    with pytest.raises(UserError, match=message):
        task_source(str(tmp_path / "fruit")).check()


def test_a_dead_link_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "fruit", {"": 2})
    (tmp_path / "fruit" / "apple" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"gone\.png: cannot be read: No such file"):
        task_source(str(tmp_path / "fruit")).identity()


def test_a_label_beyond_all_images_is_no_class(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", table([0, 1, 10**9], names=None))
    images = np.zeros((3, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "b.npz", images=images, labels=[0, 1, 10**9], split=[0, 1, 1])
    for file in ("a.parquet", "b.npz"):
        with pytest.raises(UserError, match="label 1000000000 among 3 images; labels are 0, 1, …, one per class"):
            task_source(str(tmp_path / file)).check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [[0], [1], [1]]}, r"labels must be integers, one per image, got int64, \(3, 1\)"),
        ({"split": [[0], [1], [1]]}, r"split must be integers, one per image, got int64, \(3, 1\)"),
        ({"images": np.zeros((3, 0, 0, 3), np.uint8)}, r"images must be N×H×W×3 or N×H×W×1, got \(3, 0, 0, 3\)"),
    ],
)
def test_arrays_of_the_wrong_shape(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = {"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": [0, 1, 1], "split": [0, 1, 1]}
    np.savez(tmp_path / "a.npz", **content | changes)
    with pytest.raises(UserError, match=message):
        task_source(str(tmp_path / "a.npz")).check()


def test_a_check_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "decode", lambda *_, **__: pytest.fail("it was decoded"))
    write_folder(tmp_path, {"train": 4, "test": 2})
    assert task_source(str(tmp_path)).check().image_bytes == 8 * 8 * 3 * 4
    assert task_source(str(tmp_path), size=10).check().image_bytes == 10 * 10 * 3 * 4
    assert task_source("digits").check().image_bytes == 32 * 32 * 3 * 4
