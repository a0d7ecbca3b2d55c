"""The real commands on the shipped encoder and two shipped tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import yaml

from mergerisk.study import load_study

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ["digits", "street_numbers"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter study cut to two tasks, eight images and few calibration steps."""
    folder = tmp_path_factory.mktemp("starter")
    content = yaml.safe_load(load_study("starter").to_yaml()) | {"tasks": TASKS, "images_per_task": 8}
    content["budgets"]["epsilon"] = ["2/255", "8/255"]
    for spec in content["merging"]:
        if spec["method"].startswith("adamerging"):
            spec["steps"] = 5
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "mergerisk", "run", "study.yaml", "--out", "run", "--workers", "2"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "weight_averaging+surgery" in result.stdout
    assert "report: run/report.html" in result.stdout
    return folder / "run"


@pytest.mark.slow
def test_all_settings_are_there(run: Path) -> None:
    results = pd.read_parquet(run / "results.parquet")
    merges = results[~results["target"].isin(["expert", "pretrained"])]
    assert len(merges) == 8 * 2 * 6 * 2 * 2
    assert (results["images"] == 8).all()
    assert ((results["asr_low"] <= results["asr"]) | results["asr"].isna()).all()
    white_box = results[results["surrogate"] == results["target"]]
    assert white_box["relative_asr"].dropna().eq(1).all()
    # A larger budget fools more, on the whole.
    asr = results.groupby("epsilon")["asr"].mean()
    assert asr[8 / 255] > asr[2 / 255]
    assert json.loads((run / "run.json").read_text())["kinds"]["evaluate"]["count"] == 2 * 6 * 2 * 6


@pytest.mark.slow
def test_experts_are_clearly_better_than_the_pretrained_encoder(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    accuracy = pd.DataFrame(**summary["accuracy"]).groupby("model")["accuracy"].mean()
    assert accuracy["expert"] > accuracy["pretrained"] + 0.1
    assert accuracy["pretrained"] < accuracy["weight_averaging"] < accuracy["expert"]


@pytest.mark.slow
def test_no_attack_exceeds_its_budget(run: Path) -> None:
    outcomes = pd.read_parquet(run / "outcomes.parquet")
    assert (outcomes["linf"] <= outcomes["epsilon"]).all()
    assert (outcomes["linf"] > 0.9 * outcomes["epsilon"]).mean() > 0.9
