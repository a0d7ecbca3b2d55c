"""Figures of work: images that pass through models, as planned and as they were, and the time a run took."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from mergerisk import api
from mergerisk.cli.study_words import describe_plan, outline
from mergerisk.study.executors import attempt
from mergerisk.study.kinds.clean import Clean
from mergerisk.study.kinds.evaluate import Evaluate
from mergerisk.study.planning import make_plan
from mergerisk.study.reading import load_study
from mergerisk.study.record import covered
from mergerisk.study.stage import image_counts
from mergerisk.study.variants.encoders import EncoderVariant
from tests.tiny import arrays, save_tiny_models, write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STUDY: dict[str, Any] = {
    "images_per_task": 5,
    "attacks": ["fgsm", {"attack": "i_fgsm", "steps": 3}],
    "merging": ["ties", "ties+surgery", {"method": "regmean", "examples": 7}],
    "surrogates": ["expert", {"ensemble": ["expert", "pretrained"], "label": "both"}],
    "budgets": {"epsilon": ["4/255", "8/255"]},
}


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Images that really pass through the first layer of a ViT, by what is differentiated."""
    found: Counter[str] = Counter()

    def count(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.Conv2d):
            (pixels,) = inputs
            how = "training" if module.weight.requires_grad else "gradient" if pixels.requires_grad else "forward"
            found[how] += len(pixels)

    handle = register_module_forward_pre_hook(count)
    try:
        yield found
    finally:
        handle.remove()


def test_images_are_counted_as_they_pass_through_models(tmp_path: Path, tiny_vit: Path) -> None:
    study = write_tiny_study(tmp_path, tiny_vit, **STUDY)
    planned, _ = api.plan(study, tmp_path / "run")
    with counting() as passed:
        api.run(study, tmp_path / "run", workers=1, progress=False)
    counts = json.loads((tmp_path / "run" / "run.json").read_text())["counts"]
    # How many images fit into memory is tried with one: per crafted set, and per member of an ensemble; per expert;
    alone = sum("both" not in stage.label for stage in planned.stages.values() if stage.kind == "craft")
    passed["gradient"] -= alone + 2 * alone + 2
    # On each task's expert the gradients of the 5 clean images are the same for both attacks and both budgets: taken once.
    passed["gradient"] += 2 * (2 * 2 - 1) * 5
    # and when a target answers: one that is an encoder the first time alone.
    asked = [stage.target for stage in planned.stages.values() if isinstance(stage, Clean | Evaluate)]
    encoders = [target for target in asked if isinstance(target, EncoderVariant)]
    others = [target for target in asked if not isinstance(target, EncoderVariant)]
    passed["forward"] -= len({(target.encoder, target.inside, target.adapters) for target in encoders})
    passed["forward"] -= sum(target.passes for target in others)
    assert image_counts(planned.stages.values()) == passed
    assert {how: counts[f"images_{how}"] for how in passed} == passed
    assert counts["crafted_images"] == 2 * 2 * 2 * 2 * 5


def test_a_run_counts_what_there_is_not_what_was_asked_for(tmp_path: Path, tiny_vit: Path) -> None:
    """30 test images of 90 a task: more cannot be attacked."""
    changes = {
        "images_per_task": 1000,
        "attacks": ["fgsm"],
        "merging": ["ties"],
        "budgets": {"epsilon": ["8/255"]},
    }
    result = api.run(write_tiny_study(tmp_path, tiny_vit, **changes), tmp_path / "run", workers=1, progress=False)
    assert result.summary.run.counts["crafted_images"] == 2 * 2 * 30
    assert result.summary.run.counts["images_gradient"] == 2 * 2 * 30


def test_files_that_cannot_be_read_are_not_counted(tmp_path: Path, tiny_vit: Path) -> None:
    """30 test images, one of which is no image; nothing else is counted in a task that no model learns from."""
    content = arrays("blobs")
    for number, (image, label, split) in enumerate(
        zip(content["images"], content["labels"], content["split"], strict=True)
    ):
        place = tmp_path / "blobs" / ("train", "test")[split] / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:04d}.png")
    next((tmp_path / "blobs" / "test" / "1").iterdir()).write_bytes(b"no image")
    changes = {"tasks": ["blobs"], "images_per_task": 1000, "attacks": ["fgsm"], "merging": ["ties"]}
    study = write_tiny_study(tmp_path, tiny_vit, **changes, budgets={"epsilon": ["8/255"]})
    planned, _ = api.plan(study, tmp_path / "run")
    assert image_counts(planned.stages.values())["gradient"] == 2 * 30
    counts = api.run(study, tmp_path / "run", workers=1, progress=False).summary.run.counts
    assert (counts["crafted_images"], counts["images_gradient"]) == (2 * 29, 2 * 29)


def test_the_time_a_run_took_is_that_of_all_its_parts(
    tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two spans of work, an hour apart: what lies between them was not spent on it."""
    study = write_tiny_study(tmp_path, tiny_vit, images_per_task=4, attacks=["fgsm"], merging=["ties"])
    early = datetime(2026, 1, 1, tzinfo=UTC)

    class Earlier(datetime):
        ticks = 0

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            cls.ticks += 1
            return (early + timedelta(hours=cls.ticks)).astimezone(tz)

    monkeypatch.setattr(attempt, "datetime", Earlier)
    api.run(study, tmp_path / "run", workers=1, progress=False)
    monkeypatch.undo()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    own = sum(stage["seconds"] for stage in record["stages"])
    # Stages that lie apart add up; this part, from start to end, contains them once more.
    assert record["seconds"] >= 1.9 * own
    again = api.run(study, tmp_path / "run", workers=1, progress=False)
    assert again.summary.run.seconds >= own
    assert again.summary.run.seconds < own + 60


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([(0, 2), (5, 6)], 3),
        ([(5, 6), (0, 2), (1, 4)], 5),
        ([(0, 10), (2, 3), (9, 11)], 11),
        ([], 0),
    ],
)
def test_spans_that_overlap_count_once(spans: list[tuple[float, float]], seconds: float) -> None:
    assert covered(spans) == seconds


@pytest.mark.parametrize(
    ("changes", "product"),
    [
        ({"merging": ["ties"], "tasks": ["blobs.npz"]}, "1 merging method × 1 task × 1 attack = 1 setting,"),
        ({"merging": ["ties", "weight_averaging"]}, "2 merging methods × 2 tasks × 1 attack = 4 settings,"),
        (
            {"targets": [{"label": "x", "encoder": "released.safetensors"}]},
            "(1 merging method + 1 target) × 2 tasks × 1 attack = 4 settings,",
        ),
        (
            {"merging": [], "targets": [{"label": "x", "encoder": "released.safetensors"}]},
            "1 target × 2 tasks × 1 attack = 2 settings,",
        ),
        (
            {"targets": [{"label": "box", "callable": {"blobs": "nowhere:answer"}}]},
            "1 merging method and 1 target on 3 tasks together × 1 attack = 3 settings,",
        ),
    ],
)
def test_the_number_of_settings_is_the_product_that_is_shown(
    tmp_path: Path, tiny_vit: Path, changes: dict[str, Any], product: str
) -> None:
    save_tiny_models(tmp_path, tiny_vit)
    changes = {"attacks": ["fgsm"], "merging": ["ties"], "images_per_task": 1} | changes
    study = load_study(write_tiny_study(tmp_path, tiny_vit, **changes))
    said = describe_plan(made := make_plan(study), outline(made, None))
    assert f"tiny: {product}" in said
    assert "up to 1 image a task" in said
