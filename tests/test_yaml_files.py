"""Recipes and studies are read by one loader: what is wrong with a file is one line, which names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mergerisk.errors import UserError
from mergerisk.recipe import load_recipe
from mergerisk.study import load_study
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "written.yaml"


def refused(file: Path, text: str) -> str:
    """What both say of the same file, without its name."""
    file.write_text(text)
    said = set()
    for load in (load_recipe, load_study):
        with pytest.raises(UserError) as caught:
            load(file)
        said.add(str(caught.value).removeprefix(str(file)))
    (message,) = said
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "experts:\n  a: x\n  b: y\n  a: z\n",
            ", line 4: not valid YAML: key 'a' is given twice, first on line 2",
        ),
        ("seeds: [0]\n\nseeds: [1]\n", ", line 3: not valid YAML: key 'seeds' is given twice, first on line 1"),
        ("merging:\n- {method: ties, 'method': dare}\n", ", line 2: not valid YAML: key 'method' is given twice"),
        ("a: {1: x}", ", line 1: not valid YAML: key 1 must be text, as '1'"),
        ("a: [1", ", line 1: not valid YAML: expected"),
        ("a: &b {c: *d}", ", line 1: not valid YAML: found undefined alias"),
        ("{[1]: 2}", ", line 1: not valid YAML: found unhashable key"),
        ("a: !!python/name:os.system", ", line 1: not valid YAML: could not determine a constructor"),
        ("a: 2001-13-01", ": not valid YAML: month must be in 1..12"),
        ("a: \0", ": not valid YAML: unacceptable character #x0000"),
        ("a: " + "[" * 5000, ", line 1: not valid YAML: nested more than 40 deep"),
    ],
)
def test_what_is_no_yaml_is_refused(file: Path, text: str, message: str) -> None:
    assert refused(file, text).startswith(message)


def test_a_key_may_come_again_elsewhere(file: Path) -> None:
    file.write_text("a: {x: 1}\nb: {x: 1, y: {x: 2}}\nc: [{x: 1}, {x: 2}]\n'1': 0\n")
    assert read_mapping(file, "a file") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": {"x": 2}},
        "c": [{"x": 1}, {"x": 2}],
        "1": 0,
    }


def test_a_merged_mapping_may_be_overridden(file: Path) -> None:
    """An anchor that overrides what it merges is itself merged, before its own value is made."""
    file.write_text(
        "usual: &usual {x: 1, y: 1}\nwithin:\n  inner: &inner {<<: *usual, x: 2}\nown: {<<: *inner, y: 3}\n"
    )
    assert read_mapping(file, "a file") == {
        "usual": {"x": 1, "y": 1},
        "within": {"inner": {"x": 2, "y": 1}},
        "own": {"x": 2, "y": 3},
    }
