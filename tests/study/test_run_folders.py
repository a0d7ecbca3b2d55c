"""Which folder a run goes to, and that it never replaces the run of another study without a word."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.study import load_study
from tests.tiny import write_tiny_study

SMALL: dict[str, Any] = {
    "attacks": ["fgsm"],
    "budgets": {"epsilon": ["8/255"]},
    "merging": ["weight_averaging"],
    "images_per_task": 3,
    "experts": {"fine_tune": {"epochs": 1}},
}


@pytest.fixture(scope="module")
def study(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_study(tmp_path_factory.mktemp("study"), tiny_vit, **SMALL, tasks=["stripes.npz"])


@pytest.fixture(scope="module")
def finished(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    mr.run(study, folder)
    return folder


def other_study(study: Path, **changes: Any) -> Path:
    path = study.with_name("other.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(study.read_text()) | changes))
    return path


def test_a_study_without_a_name_is_called_as_its_file(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(study.read_text())
    del content["name"]
    path = study.with_name("merges-of-may.yaml")
    path.write_text(yaml.safe_dump(content))
    assert load_study(path).name == "merges-of-may"
    monkeypatch.chdir(tmp_path)
    assert mr.run(path).folder == Path("runs/merges-of-may")


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"name": "another"}, "called 'tiny'"),
        ({"tasks": ["blobs.npz"]}, "of stripes"),
        ({"backbone": "starter-vit"}, "on "),
    ],
)
def test_the_run_of_another_study_is_not_replaced(
    study: Path, finished: Path, tmp_path: Path, changes: dict[str, Any], differs: str
) -> None:
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("store"))
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    with pytest.raises(UserError) as caught:
        mr.run(other_study(study, **changes), tmp_path / "run")
    assert f"holds the run of another study, {differs}" in str(caught.value)
    assert "choose another --out, or replace it with --force" in str(caught.value)
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


def test_it_is_replaced_with_force_and_a_changed_study_goes_on(
    study: Path, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("store"))
    store = finished / "store"
    more = mr.run(other_study(study, tasks=["stripes.npz", "blobs.npz"]), run, store=store)
    assert set(more.rates["task"]) == {"stripes", "blobs"}
    replaced = mr.run(other_study(study, name="another"), run, store=store, force=True)
    assert set(replaced.rates["task"]) == {"stripes"}
    assert load_study(run / "study.yaml").name == "another"
