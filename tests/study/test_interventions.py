"""Changed merges in a study: which targets there are, what they are, and what is refused before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import mergerisk as mr
from mergerisk.causes.catalogue import CAUSES
from mergerisk.errors import UserError
from mergerisk.merging import Placebo, ShuffledBlock, changed_experts, on_path
from mergerisk.merging.catalogue import INTERVENTIONS
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.contrasts import contrasts_of
from mergerisk.study.shipped import shipped_studies
from mergerisk.study.workbench import Compute, Workbench
from tests.tiny import save_tiny_models, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.models import Encoder

MERGING: list[Any] = [
    "weight_averaging",
    "ties",
    {"method": "weight_averaging", "path": [0, 0.25, 1]},
    {"method": "ties", "placebo": True},
    {"method": "ties", "ingredients": "all_but_attacked"},
    {"method": "ties", "shuffled_blocks": [0, 1]},
]
CHANGED = [
    "weight_averaging@0",
    "weight_averaging@0.25",
    "weight_averaging@1",
    "ties@placebo",
    "ties@all_but_attacked",
    "ties@block0",
    "ties@block1",
]


def written(folder: Path, vit: Path, merging: list[Any], **changes: Any) -> Path:
    models = save_tiny_models(folder, vit)
    given: dict[str, Any] = {"ingredients": {"public": str(models / "public.safetensors")}, "attacks": ["fgsm"]}
    return write_tiny_study(folder, vit, merging=merging, surrogates=["expert"], **given | changes)


@pytest.fixture(scope="module")
def finished(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interventions")
    causes = ["gradient_alignment", "weight_distance", "interference", "linearity"]
    mr.run(written(folder, tiny_vit, MERGING, causes=causes), folder / "run", workers=1, progress=False)
    return folder / "run"


def test_every_change_is_a_target_and_none_is_ranked(finished: Path) -> None:
    study = load_study(finished / "study.yaml")
    assert [*study.changed] == CHANGED
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    targets = outcomes.groupby("task", observed=True)["target"].unique()
    assert all({*found} == {"expert", "pretrained", "weight_averaging", "ties", *CHANGED} for found in targets)
    content = yaml.safe_load((finished / "summary.json").read_text())
    assert content["run"]["methods"] == ["weight_averaging", "ties"]
    assert content["run"]["changed"] == CHANGED
    assert {method["name"] for found in content["standings"] for method in found["methods"]} == {
        "weight_averaging",
        "ties",
    }


def test_a_study_reads_back_as_it_was_written(finished: Path) -> None:
    study = load_study(finished / "study.yaml")
    again = finished.parent / "again.yaml"
    again.write_text(study.to_yaml())
    assert load_study(again) == study


def test_targets_are_the_merges_that_direct_calls_give(finished: Path) -> None:
    study = load_study(finished / "study.yaml")
    plan, bench = make_plan(study), Workbench(Store(finished / "store"), Compute())
    plain = next(stage for stage in plan.stages.values() if stage.label == "ties, seed 0")
    base = bench.base(plain.backbone)  # type: ignore[attr-defined]
    experts = bench.experts(plain.backbone, plain.ingredients)  # type: ignore[attr-defined]
    assert [*experts] == ["stripes", "blobs", "public"]
    averaged = mr.merging.create("weight_averaging").merge(base, experts).encoder.state()
    ties = mr.merging.create("ties")
    expected: dict[str, Encoder] = {
        "weight_averaging@0": base,
        "weight_averaging@0.25": base.with_state(on_path(base.state(), averaged, 0.25)),
        "weight_averaging@1": base.with_state(averaged),
        "ties@placebo": ties.merge(base, changed_experts(base, experts, Placebo(), seed=0)).encoder,
        "ties@block1": ties.merge(base, changed_experts(base, experts, ShuffledBlock(block=1), seed=0)).encoder,
        "ties@all_but_attacked": ties.merge(base, {name: experts[name] for name in ("blobs", "public")}).encoder,
    }
    run = next(run for run in plan.task_runs if run.task == "stripes")
    made = {
        label: evaluation.target.alone(label).classifier(bench).encoder  # type: ignore[attr-defined]
        for evaluation in run.clean
        for label in evaluation.target.columns
        if label in expected
    }
    assert made.keys() == expected.keys()
    for label, encoder in expected.items():
        for name, tensor in encoder.state().items():
            assert torch.equal(tensor, made[label].state()[name]), (label, name)


def test_ends_of_the_path_cost_nothing(finished: Path) -> None:
    plan = make_plan(load_study(finished / "study.yaml"))
    run = plan.task_runs[0]
    keys = {label: found.key for found in run.clean for label in found.target.columns}
    assert keys["weight_averaging@0"] == keys["pretrained"]
    assert keys["weight_averaging@1"] == keys["weight_averaging"]


def test_diagnostics_of_what_was_merged(finished: Path) -> None:
    table = pd.read_parquet(finished / "causes.parquet")
    pairs = pd.read_parquet(finished / "pair_causes.parquet")
    assert {*CHANGED} <= {*table["target"]}
    # A placebo's ingredients are the random ones: linear mixes of them have coefficients, and TIES has none.
    quarter = table[table["target"] == "weight_averaging@0.25"]
    assert quarter["linearity"].notna().all()
    whole = table[table["target"] == "weight_averaging@1"]["linearity"].to_numpy()
    np.testing.assert_array_equal(whole, table[table["target"] == "weight_averaging"]["linearity"].to_numpy())
    cosines = pairs[(pairs["measure"] == "weight_cosine") & (pairs["task"] == "stripes")].set_index("target")[
        "value"
    ]
    assert cosines["weight_averaging@0.25"] == pytest.approx(cosines["weight_averaging"], abs=1e-4)
    assert abs(cosines["ties@placebo"]) < 0.1 < cosines["ties"]
    interference = pairs[(pairs["measure"] == "interference") & (pairs["part"] == "all")]
    of = interference.groupby("target", observed=True)["value"].first()
    assert of["ties@placebo"] != pytest.approx(of["ties"], rel=1e-3)
    assert of["weight_averaging@0.25"] == of["ties"]  # of the same ingredients


CANNOT: list[tuple[str, Any, str]] = [
    ("two at once", {"method": "ties", "placebo": True, "path": [0.5]}, "one thing is changed at a time"),
    ("range", {"method": "ties", "path": [0, 1.5]}, r"path must be in \[0, 1\].*got 1.5"),
    ("not a number", {"method": "ties", "path": [True]}, r"path must be in \[0, 1\]"),
    ("twice", {"method": "ties", "path": [0.5, 0.5]}, "path: 0.5 is given twice"),
    ("none", {"method": "ties", "path": []}, "path: give one value at least"),
    ("false", {"method": "ties", "placebo": False}, "placebo must be true"),
    ("other ingredients", {"method": "ties", "ingredients": "all"}, "ingredients must be all_but_attacked"),
    ("negative", {"method": "ties", "shuffled_blocks": -1}, "shuffled_blocks must be the number of a block"),
    ("fraction", {"method": "ties", "shuffled_blocks": 0.5}, "shuffled_blocks must be the number of a block"),
    ("stacked", {"method": "ties+surgery", "placebo": True}, "no correction is stacked on"),
    ("encoders", {"method": "emr", "placebo": True}, "the method gives each task its own"),
    ("another form", {"method": "we_moe", "path": [0.5]}, "of another architecture than the base"),
    ("alone", {"method": "dare", "placebo": True}, "the study lacks; add dare"),
    (
        "coefficients",
        {"method": "task_arithmetic", "scaling": [0.1, 0.2, 0.3], "ingredients": "all_but_attacked"},
        "3 values for 2 experts",
    ),
]


@pytest.mark.parametrize(("entry", "said"), [case[1:] for case in CANNOT], ids=[case[0] for case in CANNOT])
def test_what_cannot_be_is_said_in_a_line(tiny_vit: Path, tmp_path: Path, entry: Any, said: str) -> None:
    study = write_tiny_study(
        tmp_path, tiny_vit, merging=["ties", "emr", entry], ingredients={"public": "public.safetensors"}
    )
    with pytest.raises(UserError, match=said) as caught:
        load_study(study)
    assert all("\n" not in fault for fault in caught.value.faults)


def test_one_ingredient_left_is_no_merge(tiny_vit: Path, tmp_path: Path) -> None:
    entry = {"method": "ties", "ingredients": "all_but_attacked"}
    with pytest.raises(UserError, match="leaves 1 of the ingredients, and a merge takes two"):
        load_study(written(tmp_path, tiny_vit, ["ties", entry], ingredients={}))


def test_a_study_of_changed_merges_alone_ranks_nothing(tiny_vit: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name a merge as it is"):
        load_study(written(tmp_path, tiny_vit, [{"method": "ties", "path": [0.5]}]))


def test_a_block_that_is_not_there_is_said_before_anything_runs(tiny_vit: Path, tmp_path: Path) -> None:
    study = written(tmp_path, tiny_vit, ["ties", {"method": "ties", "shuffled_blocks": 7}])
    with pytest.raises(
        UserError, match="merging: ties@block7: shuffled_blocks: 7: the backbone has blocks 0 to 1"
    ):
        mr.run(study, tmp_path / "run", workers=1, progress=False)


def test_merged_alone_is_every_merge_as_it_is(tiny_vit: Path, tmp_path: Path) -> None:
    path = written(tmp_path, tiny_vit, MERGING)
    content = yaml.safe_load(path.read_text()) | {"surrogates": ["merged", "merged/ties@placebo"]}
    path.write_text(yaml.safe_dump(content))
    assert [spec.label for spec in load_study(path).surrogates] == ["weight_averaging", "ties", "ties@placebo"]


def test_contrasts_are_the_targets_that_differ_in_one_thing(tiny_vit: Path, tmp_path: Path) -> None:
    more = [
        {"method": "ties+surgery", "surgery": {"steps": 10}},
        {"method": "ties", "density": 0.5, "label": "half"},
    ]
    path = write_tiny_study(
        tmp_path, tiny_vit, merging=[entry for entry in MERGING if "ingredients" not in entry] + more
    )
    found = {contrast.name: dict(contrast.doses) for contrast in contrasts_of(load_study(path))}
    assert found == {
        "weight_averaging, path": {
            "weight_averaging@0": 0,
            "weight_averaging@0.25": 0.25,
            "weight_averaging@1": 1,
        },
        "ties@placebo": {"ties": 0, "ties@placebo": 1},
        "ties@block0": {"ties": 0, "ties@block0": 1},
        "ties@block1": {"ties": 0, "ties@block1": 1},
        "ties+surgery": {"ties": 0, "ties+surgery": 1},
    }


@pytest.mark.parametrize("name", ["starter-causes", "real-causes"])
def test_shipped_studies_of_causes_have_every_diagnostic_and_every_change(name: str) -> None:
    study = load_study(shipped_studies()[name], resolve=False, files=False)
    assert {spec.name for spec in study.causes} == {*CAUSES}
    kinds = {spec.intervention.kind for spec in study.merging if spec.intervention is not None}
    assert kinds == {*INTERVENTIONS}
    assert any("+" in spec.name for spec in study.merging)
    assert len(study.tasks) >= 4
