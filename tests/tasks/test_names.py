"""Names of classes and splits, as they are compared and read."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pytest

from mergerisk.errors import UserError
from mergerisk.tasks.class_names import Classes, in_words, ordered, same_names
from mergerisk.tasks.layout import config_of, of_config, split_of
from mergerisk.tasks.numbering import numbered
from mergerisk.tasks.splits import kinds_of


def test_numbers_are_ordered_as_numbers_and_anything_else_as_text() -> None:
    shuffled = np.random.default_rng(0).permutation(120)
    names = ordered(map(str, shuffled))
    assert [int(b) - int(a) for a, b in pairwise(names)] == [1] * 119
    assert ordered(["00010", "00002"]) == ("00002", "00010")
    assert ordered(["10", "2", "b"]) == ("10", "2", "b")
    assert ordered([unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]) == ("\u00e9",)


def test_names_in_words() -> None:
    assert in_words("great_grey__owl") == "great grey owl"
    assert in_words("_") == "_"
    assert same_names(["Red_Fox", "cat"], ["red fox", "Cat"])
    assert not same_names(["red fox"], ["red fox", "cat"])


def test_a_name_itself_comes_before_what_is_like_it() -> None:
    classes = Classes(["Crane", "crane", "maillot", "maillot, tank suit", "CRANE_"], 5)
    assert classes.index("crane", "here") == 1
    assert classes.index("maillot", "here") == 2
    assert classes.index("tank suit", "here") == 3
    with pytest.raises(UserError, match="3 classes called 'cRane', 0 and 1 and 4; write the number"):
        classes.index("cRane", "here")
    assert classes.index("4", "here") == 4  # as advised


@pytest.mark.parametrize(
    ("labels", "names", "first"),
    [([0, 1, 2], "012", 0), ([1, 2, 3], "123", 1), ([1, 3], "0123", 0), ([0, 2], "012", 0), ([1], "01", 0)],
)
def test_labels_count_from_1_only_if_they_are_all_there(labels: list[int], names: str, first: int) -> None:
    assert numbered(np.array(labels)) == (tuple(names), first)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "train",
            ["train", "TRAIN", "training", "train_v2", "my-data-train", "train2017", "trainset", "train_val"],
        ),
        ("test", ["test", "Testing", "test-images", "testA", "seg_test"]),
        ("validation", ["val", "valid", "validation", "dev", "imagenet_val", "ValidationSet"]),
        ("evaluation", ["eval", "evaluation"]),
        ("", ["contrast", "latest", "restrained", "interval", "device", "extra", "test_train", "", "5"]),
    ],
)
def test_kinds_of_splits(kind: str, names: list[str]) -> None:
    for name in names:
        assert kinds_of([name]) == {name: kind}, name


def test_what_all_names_have_in_common_tells_nothing() -> None:
    assert kinds_of(["test-rig-train", "test-rig-val"]) == {
        "test-rig-train": "train",
        "test-rig-val": "validation",
    }


@pytest.mark.parametrize(
    ("file", "config", "split"),
    [
        ("train.parquet", "", "train"),
        ("data/train-00000-of-00002-0a1b.parquet", "", "train"),
        ("fog/train-00000-of-00002.parquet", "fog", "train"),
        ("data/fog/train/0000.parquet", "fog", "train"),
        ("train/part-00000-1b2c.c000.snappy.parquet", "", "train"),
        ("fog/train/flowers-00000-of-00001.parquet", "fog", "train"),
        ("fog/0000.parquet", "", "fog"),
        ("fog/3/test.parquet", "fog/3", "test"),
        ("photos_2024.parquet", "", "photos_2024"),
    ],
)
def test_what_a_path_says(file: str, config: str, split: str) -> None:
    assert (config_of(file), split_of(file)) == (config, split)


def test_files_of_no_configuration_come_before_those_of_one() -> None:
    assert of_config(["full/a.parquet", "data/test.parquet"], None, "x") == ["data/test.parquet"]
    assert of_config(["full/a.parquet", "data/test.parquet"], "full", "x") == ["full/a.parquet"]
    assert of_config(["full/a.parquet", "default/test.parquet"], "default", "x") == ["default/test.parquet"]
