"""What is found wrong, or too large, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mergerisk.errors import UserError
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, preflight
from mergerisk.study.preflight import check_material, check_space
from mergerisk.study.running import needed_bytes
from mergerisk.study.stages import make_artefact
from mergerisk.study.workbench import Compute, Workbench
from tests.tasks.material import write_folder
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path


def test_decoded_tasks_and_crafted_images_need_space(tmp_path: Path, tiny_vit: Path) -> None:
    write_folder(tmp_path / "pictures", {"train": 8, "test": 4})
    tasks = [{"task": "pictures", "size": 16}, "stripes.npz"]
    path = write_tiny_study(tmp_path, tiny_vit, tasks=tasks, merging=["weight_averaging"], attacks=["fgsm"])
    study = load_study(path)
    outlines = check_material(study)
    plan, store = make_plan(study), Store(tmp_path / "store")
    pixels = 16 * 16 * 3
    crafted = 2 * 2 * 3 * 12 * pixels * 4 // 2  # tasks × surrogates × budgets × images, as float32, compressed
    assert needed_bytes(plan.missing(store), outlines, 12) == (3 * 12 + 90) * pixels + crafted
    (decoded,) = (stage for stage in plan.stages.values() if stage.kind == "task" and stage.label == "pictures")
    make_artefact(decoded, Workbench(store, Compute()))
    assert needed_bytes(plan.missing(store), outlines, 12) == 90 * pixels + crafted


def test_too_little_space_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**30}))
    check_space(tmp_path, 2**30 - 2**26)
    with pytest.raises(UserError, match="1024 MiB free, about 1088 MiB needed; free space, choose another --out"):
        check_space(tmp_path, 2**30)
