"""``report``, ``compare`` and ``claims`` on a run's folder alone, sound or damaged."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml
from safetensors.numpy import save_file

import mergerisk as mr
from tests.tiny import save_tiny_vit, write_tiny_study

from .test_cli import call

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A run's folder on another machine, where nothing is that the study names; and its results."""
    here = tmp_path_factory.mktemp("here")
    study = write_tiny_study(
        here, save_tiny_vit(here / "vit"), attacks=["fgsm"], merging=["weight_averaging", "ties"]
    )
    mr.run(study, here / "run")
    results = (here / "run" / "results.csv").read_bytes()
    there = tmp_path_factory.mktemp("there") / "run"
    shutil.copytree(here / "run", there, ignore=shutil.ignore_patterns("store"))
    for name in ("results.csv", "report.html", "summary.json"):
        (there / name).unlink()
    # What is there besides files: methods and attacks of plugins that are not installed here.
    text = (there / "study.yaml").read_text()
    (there / "study.yaml").write_text(text.replace("method: ties", "method: of_a_plugin"))
    shutil.rmtree(here)
    return there, results


def test_a_finished_run_needs_nothing_that_its_study_names(
    capsys: pytest.CaptureFixture[str], moved: tuple[Path, bytes], tmp_path: Path
) -> None:
    folder, results = moved
    for words in (
        ["report", folder, "--export", tmp_path / "out", "--formats", "md"],
        ["compare", folder, folder],
        ["claims", folder],
    ):
        code, _, err = call(capsys, *words)
        assert (code, err) == (0, ""), words
    assert (folder / "results.csv").read_bytes() == results
    assert mr.load_run(folder).summary.run.tasks == ("stripes", "blobs")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without(column: str) -> Callable[[Path], None]:
    return lambda path: pd.read_parquet(path).drop(columns=column).to_parquet(path)


def without_rows(path: Path) -> None:
    pd.read_parquet(path).head(0).to_parquet(path)


def in_words(column: str) -> Callable[[Path], None]:
    return lambda path: pd.read_parquet(path).assign(**{column: "one"}).to_parquet(path)


def changed(**facts: Any) -> Callable[[Path], None]:
    """As another version might write it."""

    def change(path: Path) -> None:
        kept = {
            name: value for name, value in json.loads(path.read_text()).items() if facts.get(name, 0) is not None
        }
        path.write_text(json.dumps(kept | {name: value for name, value in facts.items() if value is not None}))

    return change


def of_another_version(path: Path) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"schema_version": 9}))


def of_other_pictures(path: Path) -> None:
    save_file({"0/clean": pd.Series([1.0]).to_numpy()}, path)


DAMAGED: list[tuple[str, Callable[[Path], None], str]] = [
    ("run.json", cut, "cannot be read"),
    ("run.json", empty, "cannot be read"),
    ("run.json", lambda path: path.write_text("[]") and None, "holds no mapping"),
    ("run.json", changed(kinds=None), "'kinds' is missing: damaged, or of another version"),
    ("run.json", changed(counts=[]), "'counts' is not what it should be"),
    ("outcomes.parquet", cut, "cannot be read"),
    ("outcomes.parquet", empty, "cannot be read"),
    ("outcomes.parquet", without("target_clean"), "lacks the column"),
    ("outcomes.parquet", without_rows, "holds no rows"),
    ("outcomes.parquet", in_words("label"), "holds no numbers"),
    ("outcomes_by_step.parquet", cut, "cannot be read"),
    ("outcomes_by_step.parquet", without("steps"), "lacks the column"),
    ("clean.parquet", cut, "cannot be read"),
    ("clean.parquet", without("prediction"), "lacks the column"),
    ("clean.parquet", without_rows, "holds no rows"),
    ("examples.safetensors", cut, "cannot be read"),
    ("examples.safetensors", empty, "cannot be read"),
    ("examples.safetensors", of_other_pictures, "cannot be read"),
    ("study.yaml", empty, "a study is a mapping"),
    ("study.yaml", of_another_version, "schema_version"),
]


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGED)
def test_a_damaged_folder_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str],
    moved: tuple[Path, bytes],
    tmp_path: Path,
    name: str,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(moved[0], folder)
    damage(folder / name)
    commands: list[list[object]] = [["report", folder], ["compare", moved[0], folder]]
    if name in {"outcomes.parquet", "clean.parquet"}:  # all that claims are judged on
        commands.append(["claims", folder])
    for words in commands:
        code, _, err = call(capsys, *words)
        assert code == 2, err
        assert f"{folder / name}: " in err
        assert said in err
        assert err.count("\n") == 1
