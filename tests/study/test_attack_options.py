"""What a study can ask of attacks besides their names: composition, steps, aims, norms, ensembles, black boxes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

import mergerisk as mr
from mergerisk.report.assembling import summarize
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.finished import load_run
from mergerisk.study.kinds.craft import Craft
from mergerisk.study.preflight import check_material
from mergerisk.study.schema import Budgets
from tests.tiny import write_tiny_study
from tests.transfer.black_box_stand_in import Reply, service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ATTACKS = [
    "fgsm",
    {
        "attack": "mi_fgsm",
        "inputs": ["di", {"input": "si", "scales": 2}],
        "gradient": ["ti"],
        "label": "di-si-ti-mi",
    },
    {"attack": "mi_fgsm", "targeted": True, "loss": "logit", "label": "aimed"},
    {"attack": "universal", "file": "universal.npy"},
    {"attack": "stm", "styles": 1, "steps": 1, "style": "tests.naive.attacks.styles:tint@style.safetensors"},
]
CHANGES = {
    "merging": ["weight_averaging"],
    "attacks": ATTACKS,
    "surrogates": [
        "expert",
        {"ensemble": ["expert", "pretrained"], "combine": "loss", "label": "both"},
        {"ensemble": ["expert", "pretrained"], "algorithm": {"algorithm": "svre", "updates": 1}},
    ],
    "budgets": {"epsilon": ["2/255", "8/255"], "steps": 4, "after": [1, 3]},
    "targets": [{"label": "box", "callable": {"stripes": "a_black_box:say"}, "version": 2}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    made = tmp_path_factory.mktemp("options")
    write_tiny_study(made, tiny_vit, **CHANGES)
    np.save(made / "universal.npy", np.random.default_rng(0).uniform(-0.1, 0.1, (3, 8, 8)))
    save_file({"gains": torch.tensor([0.1, 0.2, 0.3])}, made / "style.safetensors")
    (made / "a_black_box.py").write_text("def say(images):\n    return [1] * len(images)\n")
    return made


@pytest.fixture(scope="module")
def result(folder: Path) -> Iterator[mr.StudyResult]:
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(folder))
    yield mr.run(folder / "study.yaml", folder / "out")
    patch.undo()


def test_every_attack_and_surrogate_has_its_rows(result: mr.StudyResult) -> None:
    rates = result.rates
    assert set(rates["attack"]) == {"fgsm", "di-si-ti-mi", "aimed", "universal", "stm"}
    assert set(rates["surrogate"]) == {"expert", "both", "ensemble-svre"}
    assert set(rates["target"]) == {"expert", "pretrained", "weight_averaging", "box"}, "an ensemble is no target"
    assert rates[rates["target"] == "box"]["task"].unique().tolist() == ["stripes"]
    assert rates.groupby("attack")["steps"].unique().map(list).to_dict() == {
        "fgsm": [1],
        "di-si-ti-mi": [4],
        "aimed": [4],
        "universal": [1],
        "stm": [1],
    }


def test_an_algorithm_follows_the_members_and_is_paid_for(result: mr.StudyResult, folder: Path) -> None:
    lengths = result.outcomes.set_index("surrogate")["l2"][result.outcomes["attack"].eq("di-si-ti-mi").to_numpy()]
    assert not np.array_equal(lengths["both"], lengths["ensemble-svre"])
    plan = make_plan(load_study(folder / "study.yaml"))
    costs = {
        stage.surrogate.labels: stage.cost()["gradient"]
        for stage in plan.stages.values()
        if isinstance(stage, Craft) and stage.label.startswith("aimed on stripes")
    }
    # Images × steps × members; an algorithm's (2 + updates) times as many.
    assert costs == {"expert": 12 * 4, "both": 12 * 4 * 2, "ensemble-svre": 12 * 4 * 3 * 2}
    again = parse_study(yaml.safe_load((folder / "out" / "study.yaml").read_text()))
    assert again.surrogates[2].algorithm == load_study(folder / "study.yaml").surrogates[2].algorithm


def test_iterates_are_those_of_shorter_attacks(result: mr.StudyResult, folder: Path) -> None:
    """One run's outcomes after three steps are those of an attack that takes three."""
    by_step = pd.read_parquet(folder / "out" / "outcomes_by_step.parquet")
    assert set(by_step["attack"]) == {"di-si-ti-mi", "aimed"}
    assert sorted(by_step["steps"].unique()) == [1, 3, 4]
    shorter = mr.run(
        load_study(folder / "study.yaml").model_copy(
            update={
                "budgets": Budgets(epsilon=(8 / 255,), steps=3),
                "attacks": tuple(
                    spec.model_copy(update={"parameters": spec.parameters | {"steps": 3}})
                    for spec in load_study(folder / "study.yaml").attacks
                    if spec.label in {"di-si-ti-mi", "aimed"}
                ),
            }
        ),
        folder / "shorter",
        store=folder / "out" / "store",
    ).outcomes
    kept = by_step[(by_step["steps"] == 3) & (by_step["epsilon"] == 8 / 255)].reset_index(drop=True)
    columns = [
        "task",
        "attack",
        "surrogate",
        "target",
        "image",
        "surrogate_adversarial",
        "target_adversarial",
        "l2",
    ]
    pd.testing.assert_frame_equal(kept[columns], shorter[columns].reset_index(drop=True), check_categorical=False)
    assert len(result.summary.by_step)
    assert "How many steps" in (folder / "out" / "report.html").read_text()
    assert (folder / "out" / "results_by_step.csv").is_file()


def test_aims_are_kept_and_counted(result: mr.StudyResult) -> None:
    aimed = result.outcomes[result.outcomes["attack"] == "aimed"]
    assert (aimed["aimed_at"] >= 0).all()
    assert (aimed["aimed_at"] != aimed["label"]).all()
    assert (result.outcomes[result.outcomes["attack"] != "aimed"]["aimed_at"] == -1).all()
    white_box = result.rates.query("attack == 'aimed' and target == 'expert'")
    assert white_box["targeted_success"].notna().all()
    assert result.rates.query("attack == 'fgsm'")["targeted_success"].isna().all()


def test_a_black_box_is_asked_for_its_task_only(result: mr.StudyResult) -> None:
    box = result.outcomes[result.outcomes["target"] == "box"]
    assert (box["target_adversarial"] == 1).all()
    assert (box["target_clean"] == 1).all()
    clean = pd.read_parquet(result.folder / "clean.parquet")
    assert (clean["model"] == "box").sum() == 12, "no more clean queries than attacked images"


def test_the_study_that_was_run_can_be_read_again(result: mr.StudyResult) -> None:
    again = load_study(result.folder / "study.yaml")
    assert again == load_study(result.folder.parent / "study.yaml")
    assert mr.write_report(result.folder).rates.equals(result.rates)


@pytest.mark.parametrize(("attack", "file"), [("universal", "universal.npy"), ("stm", "style.safetensors")])
def test_what_an_attack_is_given_is_known_by_its_content(folder: Path, attack: str, file: str) -> None:
    study, before = load_study(folder / "study.yaml"), (folder / file).read_bytes()
    known = set(make_plan(study).stages)
    if file.endswith(".npy"):
        np.save(folder / file, np.zeros((3, 8, 8)))
    else:
        save_file({"gains": torch.zeros(3)}, folder / file)
    changed = [stage for key, stage in make_plan(study).stages.items() if key not in known]
    (folder / file).write_bytes(before)
    assert {stage.kind for stage in changed} == {"craft", "evaluate"}
    assert {stage.attack for stage in changed if isinstance(stage, Craft)} == {attack}
    assert set(make_plan(study).stages) == known


def test_a_style_network_is_tried_before_anything_is_trained(tmp_path: Path, tiny_vit: Path) -> None:
    attack = {"attack": "stm", "style": "tests.naive.attacks.styles:tint@style.safetensors"}
    study = write_tiny_study(tmp_path, tiny_vit, merging=["weight_averaging"], attacks=[attack])
    save_file({"gains": torch.tensor([0.1, 0.2, float("nan")])}, tmp_path / "style.safetensors")
    with pytest.raises(mr.UserError, match="'gains' holds NaN"):
        check_material(load_study(study))


def test_l2_budgets_bound_the_length_of_the_change(tmp_path: Path, tiny_vit: Path) -> None:
    study = write_tiny_study(
        tmp_path,
        tiny_vit,
        merging=["weight_averaging"],
        attacks=["pgd"],
        budgets={"epsilon": [1.5], "norm": "l2", "steps": 3},
    )
    outcomes = mr.run(study, tmp_path / "out").outcomes
    assert 1.4 < outcomes["l2"].max() <= 1.5
    assert outcomes["linf"].max() > 0.1
    assert "Euclidean" in (tmp_path / "out" / "report.html").read_text()


def test_an_http_target_is_never_asked_more_than_its_budget(tmp_path: Path, tiny_vit: Path) -> None:
    with service(lambda _, images: Reply({"labels": [0] * len(images)})) as server:
        target = {"label": "api", "http": {"stripes": server.address}, "queries": 12 + 12 * 2 - 1}
        changes = {
            "merging": ["weight_averaging"],
            "attacks": ["fgsm"],
            "surrogates": ["expert"],
            "targets": [target],
        }
        budgets = {"epsilon": ["2/255", "8/255"]}
        study = write_tiny_study(tmp_path, tiny_vit, **changes, budgets=budgets)
        with pytest.raises(mr.UserError, match="queries"):
            mr.run(study, tmp_path / "out")
        assert server.images == 0, "refused before anything was sent"
        target["queries"] += 1
        write_tiny_study(tmp_path, tiny_vit, **changes, budgets=budgets)
        outcomes = mr.run(study, tmp_path / "out").outcomes
        assert server.images == 36
        assert len(outcomes[outcomes["target"] == "api"]) == 24
        mr.run(study, tmp_path / "out")
        assert server.images == 36, "answers are kept"
    counts = [json.loads(path.read_text()) for path in (tmp_path / "out" / "store" / "queries").glob("*.json")]
    assert counts == [{"used": 36}]


def test_zero_gradients_are_told(result: mr.StudyResult) -> None:
    run = load_run(result.folder)
    assert not any("exactly zero" in caveat for caveat in summarize(run).run.caveats)
    met = run.outcomes.assign(zero_gradients=(run.outcomes["attack"] == "fgsm").astype(int))
    (caveat,) = [text for text in summarize(replace(run, outcomes=met)).run.caveats if "exactly zero" in text]
    assert "fgsm (100.0%)" in caveat
    assert "margin" in caveat
