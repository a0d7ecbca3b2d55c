"""The models of a study before anything is merged: their accuracy is that of the run that follows."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml

import mergerisk as mr
from mergerisk.checking import check_study
from mergerisk.errors import UserError
from tests.cli.test_cli import call
from tests.heard import of_stages
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study import Stage

QUICK: dict[str, Any] = {
    "merging": ["weight_averaging"],
    "attacks": ["fgsm"],
    "budgets": {"epsilon": ["8/255"]},
    "images_per_task": 6,
}


def test_a_run_takes_up_what_a_check_made(tmp_path: Path, tiny_vit: Path) -> None:
    study = write_tiny_study(tmp_path, tiny_vit, **QUICK)
    found = check_study(study, tmp_path / "run", device="cpu")
    assert set(found.accuracy["model"]) == {"pretrained", "expert"}
    assert found.tasks.set_index("task").loc["stripes"].to_dict() == {
        "classes": 3,
        "train": 45,  # 60, a quarter of which is held out for calibration
        "calibration": 15,
        "test": 30,
    }
    made: list[tuple[str, str]] = []
    mr.run(
        study,
        tmp_path / "run",
        device="cpu",
        listeners=[of_stages(lambda stage, event: made.append((stage.kind, event)))],
    )
    assert not {("expert", "done"), ("head", "done"), ("task", "done")} & set(made)
    clean = pd.read_parquet(tmp_path / "run" / "clean.parquet")
    for row in found.accuracy.to_dict("records"):
        of = clean[(clean["task"] == row["task"]) & (clean["model"] == row["model"])]
        assert row["correct"] == int((of["label"] == of["prediction"]).sum())
        assert row["images"] == len(of)


def test_damage_found_when_everything_is_made_is_said_and_made_again(tmp_path: Path, tiny_vit: Path) -> None:
    study = write_tiny_study(tmp_path, tiny_vit, **QUICK)
    sound = check_study(study, tmp_path / "sound", device="cpu")
    events: list[str] = []

    def damage(stage: Stage, event: str, times: int) -> None:
        if stage.kind == "clean" and event == "done" and events.count("done") < times:
            place = tmp_path / "run" / "store" / "objects" / stage.key[:2] / stage.key / "manifest.json"
            place.write_bytes(b"")
            events.append("done")
        if event == "damaged":
            events.append(f"{stage.kind} damaged")

    out = tmp_path / "run"
    found = check_study(study, out, device="cpu", listener=of_stages(lambda stage, event: damage(stage, event, 1)))
    assert events == ["done", "clean damaged"]
    pd.testing.assert_frame_equal(found.accuracy, sound.accuracy)
    shutil.rmtree(out)
    events.clear()
    with pytest.raises(UserError, match=r"again 3 times; the disk is not sound"):
        check_study(study, out, device="cpu", listener=of_stages(lambda stage, event: damage(stage, event, 1000)))


def test_an_expert_without_use_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A learning rate of nearly nothing leaves the expert where it was.
    lazy = {"fine_tune": {"epochs": 1, "learning_rate": 1e-12, "batch_size": 16}}
    write_tiny_study(tmp_path, tiny_vit, **QUICK, experts=lazy)
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "check", "study.yaml", "--json", tmp_path / "check.json")
    assert code == 0, err
    assert "stripes: the expert is no better than the pretrained encoder" in " ".join(out.split())
    assert (tmp_path / "runs" / "tiny" / "store").is_dir()
    log = (tmp_path / "runs" / "tiny" / "run.log").read_text()
    assert " WARNING stripes: the expert is no better than the pretrained encoder" in log
    assert re.search(r" INFO finished, after .*: models checked, nothing merged or attacked\n\Z", log)
    assert yaml.safe_load((tmp_path / "check.json").read_text())["warnings"]


def test_heads_whose_classes_are_in_another_order_are_named(tmp_path: Path, tiny_vit: Path) -> None:
    study = write_tiny_study(tmp_path, tiny_vit, **QUICK)
    file = tmp_path / "blobs.npz"
    arrays = dict(np.load(file))
    test = arrays["split"] == 1
    arrays["labels"][test] = (arrays["labels"][test] + 1) % 3  # as where test labels start elsewhere
    np.savez(file, **arrays)
    found = check_study(study, tmp_path / "run", device="cpu")
    assert any(warning.startswith("blobs, pretrained: order of classes: ") for warning in found.warnings), (
        found.accuracy
    )


def test_mistakes(capsys: pytest.CaptureFixture[str], tiny_vit: Path, tiny_study: Path) -> None:
    for arguments, message in (
        ((tiny_vit,), "mergerisk check MODEL IMAGES"),
        (("timm:net",), "mergerisk check MODEL IMAGES"),
        ((tiny_study, "--limit", "3"), "--limit is of MODEL IMAGES"),
        (("nowhere.yaml",), "nowhere.yaml"),
    ):
        code, _, err = call(capsys, "check", *arguments)
        assert code == 2
        assert message in err
    with pytest.raises(UserError, match="nowhere"):
        check_study("nowhere.yaml")
