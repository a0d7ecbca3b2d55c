"""What images show, by folder or table, and every way to get it wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mergerisk.crafting.labels import read_folders, read_table, to_labels
from mergerisk.errors import UserError
from mergerisk.tasks.class_names import Classes
from tests.crafting.material import NAMES

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = Classes(NAMES, 3)


@pytest.mark.parametrize(
    ("text", "index"),
    [("cat", 0), (" Cat ", 0), ("red_fox", 1), ("vulpes vulpes", 1), ("red fox, Vulpes vulpes", 1), ("2", 2)],
)
def test_classes_are_found_by_name_alias_and_number(text: str, index: int) -> None:
    assert CLASSES.index(text, "here") == index


def test_names_come_before_numbers_and_shared_aliases_are_none() -> None:
    assert Classes(["3", "1", "0"], 3).index("0", "here") == 2
    birds = Classes(["crane, bird", "crane, machine"], 2)
    assert birds.index("Bird", "here") == 0
    with pytest.raises(UserError, match="2 classes called 'crane', 0 and 1; write the number"):
        birds.index("crane", "here")


@pytest.mark.parametrize(
    ("text", "message"), [("3", "out of range"), ("cta", "did you mean 'cat'"), ("-1", "no class")]
)
def test_unknown_classes(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^here: .*{message}"):
        CLASSES.index(text, "here")


def test_without_names_only_numbers_do() -> None:
    assert Classes(None, 3).index("1", "here") == 1
    with pytest.raises(UserError, match="write numbers, 0 to 2"):
        Classes(None, 3).index("cat", "here")


def test_folders() -> None:
    said, skipped = read_folders(["cat/a.png", "2/b/c.png", "readme.txt"])
    assert to_labels(said, CLASSES) == {"cat/a.png": 0, "2/b/c.png": 2}
    assert [item.name for item in skipped] == ["readme.txt"]
    with pytest.raises(UserError, match=r"^folder 'dog': the model has no class"):
        to_labels(read_folders(["dog/a.png"])[0], CLASSES)


def test_tables(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("\ufefflabel,file\ncat,a.png\n1,./b/c.png\n", encoding="utf-8")
    said, skipped = read_table(table, ["a.png", "b/c.png", "d.png"])
    assert to_labels(said, CLASSES) == {"a.png": 0, "b/c.png": 1}
    assert [item.name for item in skipped] == ["d.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.png\n", "no column 'label'"),
        ("", "no column"),
        ("file,label\na.png,3\n", "line 2: class 3 is out of range"),
        ("file,label\na.png,0\na.png,1\n", "line 3: 'a.png' is given twice"),
        ("file,label\na.pmg,0\n", "did you mean 'a.png'"),
        ("file,label\na.png\n", "line 2: the model has no class ''"),
        ("file,label\n\xff,0\n", "not a CSV table in UTF-8"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        to_labels(read_table(table, ["a.png"])[0], CLASSES)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "labels.csv", [])
