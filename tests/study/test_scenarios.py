"""Attackers of every kind, and models made elsewhere, in one small study."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.models import Head
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.kinds.craft import Craft
from mergerisk.study.kinds.expert import Expert
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.variants.encoders import EncoderVariant
from mergerisk.study.workbench import Compute, Workbench
from tests.tiny import MINIMAL, save_tiny_models, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study import Stage

SURROGATES = [
    "expert",
    "pretrained",
    "other_expert",
    "expert/blobs",
    "ingredient/public",
    "outsider",
    "other_architecture",
    "merged/weight_averaging",
    "merged/released",
    {"ensemble": ["expert", "outsider"], "label": "both"},
    "averaged",
]


@pytest.fixture(scope="module")
def files(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public fine-tune, a merge made elsewhere, and another architecture."""
    return save_tiny_models(tmp_path_factory.mktemp("models"), tiny_vit)


@pytest.fixture(scope="module")
def finished(files: Path, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all of them."""
    folder = tmp_path_factory.mktemp("scenarios")
    path = write_tiny_study(
        folder,
        tiny_vit,
        merging=["weight_averaging", {"method": "task_arithmetic", "scaling": 0.2}],
        attacks=["fgsm"],
        ingredients={"public": str(files / "public.safetensors")},
        outsider={"task": "blobs.npz", "fine_tune": {"epochs": 1}, "offered": True},
        other_architecture={"backbone": str(files / "other"), "fine_tune": {"epochs": 1}},
        targets=[{"label": "released", "encoder": str(files / "released.safetensors")}],
        surrogates=SURROGATES,
        averaged={"fine_tune": {"epochs": 1}, "collect": {"epochs": 1, "learning_rate": 0.01}},
        budgets={"epsilon": ["8/255"]},
    )
    mr.run(path, folder / "run")
    return folder / "run"


def test_every_attacker_is_tried_on_every_target(finished: Path) -> None:
    results = pd.read_parquet(finished / "results.parquet")
    labels = [
        "expert", "pretrained", "other_expert", "expert/blobs", "public", "outsider", "other_architecture",
        "weight_averaging", "released", "both", "averaged",
    ]  # fmt: skip
    assert set(results["surrogate"]) == set(labels)
    assert set(results["target"]) == {"expert", "pretrained", "weight_averaging", "task_arithmetic", "released"}
    assert len(results) == 2 * len(labels) * 5
    white = results[results["surrogate"] == results["target"]].dropna(subset="asr")
    assert len(white) == 2 * 4
    assert (white["asr"] == white["surrogate_asr"]).all()
    accuracy = pd.read_parquet(finished / "clean.parquet")["model"].unique()
    assert set(accuracy) == set(results["target"])


def test_what_a_surrogate_is(finished: Path) -> None:
    """An expert by name is that expert; the next task's is the other one; of blobs it is the public ingredient."""
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    columns = ["image", "surrogate_clean", "surrogate_adversarial", "target_adversarial", "l2"]

    def rows(task: str, surrogate: str) -> pd.DataFrame:
        chosen = (outcomes["task"] == task) & (outcomes["surrogate"] == surrogate)
        return outcomes.loc[chosen & (outcomes["target"] == "task_arithmetic"), columns].reset_index(drop=True)

    pd.testing.assert_frame_equal(rows("blobs", "expert"), rows("blobs", "expert/blobs"))
    pd.testing.assert_frame_equal(rows("stripes", "other_expert"), rows("stripes", "expert/blobs"))
    pd.testing.assert_frame_equal(rows("blobs", "other_expert"), rows("blobs", "public"))
    assert not rows("blobs", "outsider").equals(rows("blobs", "expert"))
    assert not rows("blobs", "other_architecture").equals(rows("blobs", "expert"))
    assert not rows("blobs", "averaged").equals(rows("blobs", "outsider"))


def stages(run: Path) -> tuple[list[Stage], Store]:
    return list(make_plan(load_study(run / "study.yaml")).stages.values()), Store(run / "store")


def test_a_merge_has_every_ingredient(finished: Path) -> None:
    """Weight averaging is the mean of both experts, the public model and the outsider."""
    found, store = stages(finished)
    merge = next(stage for stage in found if isinstance(stage, Merge) and stage.label.startswith("weight"))
    assert [*merge.ingredients] == ["stripes", "blobs", "public", "outsider"]
    parts = [store.get(made.key).arrays for made in merge.ingredients.values()]
    merged = store.get(merge.key).arrays
    for name, tensor in merged.items():
        np.testing.assert_allclose(tensor, np.mean([part[name] for part in parts], axis=0), atol=1e-6)
    assert not np.array_equal(parts[1]["layernorm.weight"], parts[3]["layernorm.weight"])


def test_the_other_architecture_carries_a_head_of_its_own(finished: Path) -> None:
    """Its white-box predictions, made by hand."""
    found, store = stages(finished)
    crafts = [stage for stage in found if isinstance(stage, Craft) and stage.surrogate.task == "blobs"]
    craft = next(craft for craft in crafts if "other_architecture" in craft.label)
    other = craft.surrogate
    assert isinstance(other, EncoderVariant)
    assert other.encoder is not None
    head = store.get(other.head.key).arrays
    state = {name: torch.from_numpy(array) for name, array in store.get(other.encoder.key).arrays.items()}
    assert head["weight"].shape == (3, 24)
    classifier = mr.Classifier(
        mr.load_encoder(other.backbone.name).with_state(state),
        Head(torch.from_numpy(head["weight"]), torch.from_numpy(head["bias"])),
    )
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    chosen = outcomes[(outcomes["task"] == "blobs") & (outcomes["surrogate"] == "other_architecture")]
    adversarial = Workbench(store, Compute()).crafted(craft.key)["adversarial"][-1]
    said = mr.transfer.predict(classifier, adversarial).tolist()
    assert chosen[chosen["target"] == "expert"]["surrogate_adversarial"].tolist() == said


def test_the_run_says_what_it_was_made_of(finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert record["commits"] == {}
    study = load_study(finished / "study.yaml")
    assert study.merged_names == ("stripes", "blobs", "public", "outsider")
    assert study.settings == 3 * 2 * 1


def test_merged_alone_stands_for_every_merge() -> None:
    study = parse_study(MINIMAL | {"merging": ["ties", "weight_averaging"], "surrogates": ["expert", "merged"]})
    assert [spec.label for spec in study.surrogates] == ["expert", "ties", "weight_averaging"]


def test_an_outsider_without_data_has_the_tasks_own_under_another_seed() -> None:
    plan = make_plan(parse_study(MINIMAL | {"surrogates": ["expert", "outsider"]}))
    experts = [stage for stage in plan.stages.values() if isinstance(stage, Expert)]
    assert [stage.seed for stage in experts] == [0, 1000]
    assert experts[0].inputs == experts[1].inputs


def test_an_average_starts_where_an_outsider_stands_whose_classes_may_be_unbalanced() -> None:
    plain = make_plan(parse_study(MINIMAL | {"surrogates": ["outsider", "averaged"]}))
    kinds = {kind: [s for s in plain.stages.values() if s.kind == kind] for kind in ("expert", "average")}
    (average,) = kinds["average"]
    assert average.inputs["fine_tuned"] == next(s.key for s in kinds["expert"] if s.seed == 1000)
    assert average.cost() == {"training": average.images * 10}
    few = make_plan(parse_study(MINIMAL | {"surrogates": ["outsider"], "outsider": {"minority": 0.2}}))
    (outsider,) = (s for s in few.stages.values() if isinstance(s, Expert) and s.seed == 1000)
    assert outsider.key not in plain.stages
    assert outsider.images == round(kinds["expert"][0].images * 0.625)  # a half, and a quarter of the other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ingredients": {"mine": "nowhere.safetensors"}}, "ingredients.mine: "),
        ({"targets": [{"label": "x", "encoder": "nowhere.safetensors"}]}, "targets: x: "),
        ({"experts": {"files": {"digits": "nowhere.safetensors"}}}, "experts.files.digits: "),
        ({"outsider": {"file": "nowhere.safetensors"}, "surrogates": ["outsider"]}, "outsider.file: "),
        (
            {"other_architecture": {"backbone": "nowhere"}, "surrogates": ["other_architecture"]},
            "other_architecture: unknown backbone 'nowhere'",
        ),
    ],
)
def test_missing_models_are_named_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    events: list[object] = []
    with pytest.raises(UserError) as caught:
        mr.run(parse_study(MINIMAL | changes), tmp_path, listeners=[events.append])
    assert message in str(caught.value)
    assert events == []
