"""Real images and a pretrained ViT, where the machine has them; never part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import mergerisk as mr
from mergerisk.study import load_study, make_plan

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
