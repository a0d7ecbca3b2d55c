"""What is found wrong, or too large, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from mergerisk.errors import UserError
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, preflight
from mergerisk.study.executors.attempt import make_artefact
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.preflight import check_material, check_queries, check_space
from mergerisk.study.running import needed_bytes
from mergerisk.study.workbench import Compute, Workbench
from tests.models.material import CLASSES, save_classifier
from tests.tasks.material import write_folder
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path


def test_decoded_tasks_and_crafted_images_need_space(tmp_path: Path, tiny_vit: Path) -> None:
    write_folder(tmp_path / "pictures", {"train": 8, "test": 4})
    tasks = [{"task": "pictures", "size": 16}, "stripes.npz"]
    options = {"tasks": tasks, "merging": ["weight_averaging"], "attacks": ["fgsm"]}
    study = load_study(write_tiny_study(tmp_path, tiny_vit, **options))
    outlines = check_material(study)
    plan, store = make_plan(study), Store(tmp_path / "store")
    pixels = 16 * 16 * 3
    crafted = 2 * 2 * 3 * 12 * pixels * 4 // 2  # tasks × surrogates × budgets × images, as float32, compressed
    assert needed_bytes(plan.missing(store), outlines, 12) == (3 * 12 + 90) * pixels + crafted
    asking = {"causes": ["gradient_alignment", "smoothness"]}
    more = make_plan(load_study(write_tiny_study(tmp_path, tiny_vit, **options, **asking)))
    gradients = 2 * 3 * 12 * pixels * 4  # tasks × models × images, as float32; curvatures are a number each
    assert needed_bytes(more.missing(store), outlines, 12) == (3 * 12 + 90) * pixels + crafted + gradients
    (decoded,) = (stage for stage in plan.stages.values() if stage.kind == "task" and stage.label == "pictures")
    make_artefact(decoded, Workbench(store, Compute()))
    assert needed_bytes(plan.missing(store), outlines, 12) == 90 * pixels + crafted


def test_too_little_space_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**30}))
    check_space(tmp_path, 2**30 - 2**26)
    with pytest.raises(UserError, match="1024 MiB free, about 1088 MiB needed; free space, choose another --out"):
        check_space(tmp_path, 2**30)


def test_a_budget_that_nobody_would_count_is_refused(tmp_path: Path, tiny_vit: Path) -> None:
    """Nodes that share a bucket and no folder would send so many images each."""
    target = {"label": "service", "http": {"stripes": "http://127.0.0.1:9/ask"}, "queries": 1000}
    path = write_tiny_study(tmp_path, tiny_vit, merging=[], attacks=["fgsm"], targets=[target])
    stages = make_plan(load_study(path)).stages.values()
    check_queries(stages, tmp_path)
    with pytest.raises(UserError, match=r"^target service: queries: a budget is counted in a folder"):
        check_queries(stages, tmp_path, apart=True)


def test_merges_with_batch_norm_read_images(tmp_path: Path) -> None:
    """Statistics are estimated anew on them, whatever the method reads itself; not where tasks keep their own."""
    backbone = save_classifier(tmp_path / "resnet", "resnet")
    path = write_tiny_study(tmp_path, backbone, merging=["weight_averaging", "ties", "emr"], attacks=["fgsm"])
    study = load_study(path)
    merges = {stage.method: stage for stage in make_plan(study).stages.values() if isinstance(stage, Merge)}
    for method in ("weight_averaging", "ties"):
        data = merges[method].calibration
        assert data is not None
        assert data.split == "held_out"
        assert {*data.tasks} == {*data.heads} == {"stripes", "blobs"}
    assert merges["emr"].calibration is None
    made = study.model_copy(update={"ingredients": {"public": str(backbone)}})
    with pytest.raises(
        UserError, match=r"weight_averaging, for the backbone's BatchNorm, .* 'public' has no task"
    ):
        check_material(made)


def test_an_outsider_without_data_needs_the_tasks_training_images(tmp_path: Path) -> None:
    """Heads and experts come from files, so that nothing else trains."""
    write_folder(tmp_path / "pictures", {"train": 4, "test": 4}, names=CLASSES)
    backbone = save_classifier(tmp_path / "vit", "vit")
    path = write_tiny_study(
        tmp_path,
        backbone,
        tasks=[{"task": "pictures", "size": 32, "limit": {"train": 0}}],
        heads={"from": "checkpoint"},
        experts={"from": "files", "files": {"pictures": str(backbone)}},
        merging=["weight_averaging"],
    )
    study = load_study(path)
    check_material(study)
    outsider = type(study.surrogates[0])(members=("outsider",), label="outsider")
    with pytest.raises(UserError, match="'pictures' has no training images, and fine-tuning needs some"):
        check_material(study.model_copy(update={"surrogates": (outsider,)}))
    # A defense that trains needs them too, or calibration images, where it reads no labels.
    resolved = load_study(_with(path, {"defense": "fare", "of": "weight_averaging"}))
    with pytest.raises(UserError, match="'pictures' has no training images, and fare needs some"):
        check_material(resolved)
    check_material(load_study(_with(path, {"defense": "fare", "of": "weight_averaging", "images": "calibration"})))


def _with(path: Path, defense: dict[str, str]) -> Path:
    """The study, with a defense."""
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"defenses": [defense]}))
    return path


def test_a_study_of_the_shipped_backbone_loads_no_model_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hyper-parameters of corrections are no layers; a scaling by layer is looked up in the model's."""
    loaded: list[str] = []

    def load(name: str, **_: object) -> None:
        loaded.append(name)
        raise UserError("loaded")

    monkeypatch.setattr("mergerisk.models.load_encoder", load)
    check_material(load_study("starter"))
    assert not loaded
    with pytest.raises(UserError, match="loaded"):
        check_material(
            load_study("starter", settings=["merging=[{method: ties, scaling: {layers.0: 0.2, '*': 1}}]"])
        )
    assert loaded == ["starter-vit"]
