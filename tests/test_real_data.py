"""Real images and a pretrained ViT, where the machine has them; never part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml

import mergerisk as mr
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.shipped import shipped_studies

DATA = os.environ.get("MERGERISK_REAL_DATA")

pytestmark = pytest.mark.skipif(DATA is None, reason="MERGERISK_REAL_DATA names no folder with real tasks")


@pytest.fixture
def data() -> Path:
    return Path(str(DATA))


def test_the_study_of_real_tasks_finds_what_it_reads(data: Path) -> None:
    study = load_study("real-methods", data=data)
    plan = make_plan(study)
    assert len({run.task for run in plan.task_runs}) == len(study.tasks) == 6
    assert sum(stage.kind == "expert" for stage in plan.stages.values()) == 6


def test_a_pretrained_vit_sees_real_images_better_than_chance(data: Path) -> None:
    """Ten classes of textures: loading, half precision, resizing and the probe together."""
    base = mr.load_encoder(str(data / "vit-tiny-patch16-224"), image_size=96)
    assert {tensor.dtype for tensor in base.state().values()} == {torch.float32}
    task = mr.load_task(str(data / "tasks" / "dtd_sub10.npz"))
    head = mr.linear_probe(base, task, regularization=0.01)
    images, labels = task.test.images[:120], task.test.labels[:120]
    right = mr.transfer.predict(mr.Classifier(base, head), images) == labels
    assert float(right.float().mean()) > 0.3  # chance is 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["real-small", "real-cnn"])
def test_a_small_part_of_a_real_study_runs_to_the_end(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped study with fewer tasks, epochs, steps and images: every surrogate, on every target."""
    monkeypatch.syspath_prepend(data / "mobilenet-v2")
    content = yaml.safe_load(shipped_studies()[name].read_text(encoding="utf-8"))
    content |= {
        "tasks": [
            {"task": f"tasks/{name}.npz", "limit": {"train": 300, "test": 100}} for name in ("cifar10", "mnist")
        ],
        "experts": {"fine_tune": {"epochs": 1}},
        "merging": ["weight_averaging", {"method": "adamerging+surgery", "steps": 2, "surgery": {"steps": 20}}],
        "attacks": ["fgsm", {"attack": "mi_fgsm", "steps": 2}],
        "surrogates": [name for name in content["surrogates"] if not name.startswith("merged/")],
        "budgets": {"epsilon": ["2/255"]},
        "images_per_task": 10,
    }
    result = mr.run(parse_study(content, data), tmp_path / "run", device="cpu")
    accuracy = result.summary.accuracy.groupby("model")["accuracy"].mean()
    assert min(accuracy) > 0.3  # chance is 0.1
    assert set(result.rates["surrogate"]) == set(content["surrogates"])
    assert len(result.rates) == 2 * 2 * len(content["surrogates"]) * 4
