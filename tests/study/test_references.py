"""Lines of reference in a study: what they answer, that they cost no more than they must, and that none is ranked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.leaderboard.fitting import misfits
from mergerisk.report.worst import holds
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.finished import load_run
from mergerisk.study.workbench import Compute, Workbench
from tests.tiny import save_tiny_models, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

REFERENCES = ["experts_ensemble", "experts_routed"]


def written(folder: Path, vit: Path, **changes: Any) -> Path:
    models = save_tiny_models(folder, vit)
    given: dict[str, Any] = {
        "ingredients": {"public": str(models / "public.safetensors")},
        "merging": ["weight_averaging", {"method": "task_arithmetic", "scaling": 0.4}],
        "attacks": ["fgsm"],
        "surrogates": ["expert", "pretrained"],
        "budgets": {"epsilon": ["8/255"]},
        "references": REFERENCES,
    }
    return write_tiny_study(folder, vit, **given | changes)


@pytest.fixture(scope="module")
def finished(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("references")
    mr.run(written(folder, tiny_vit), folder / "run", workers=1, progress=False)
    return folder / "run"


def test_the_ensemble_names_the_class_of_the_mean_probability(finished: Path) -> None:
    plan, bench = make_plan(load_study(finished / "study.yaml")), Workbench(Store(finished / "store"), Compute())
    merge: Any = next(stage for stage in plan.stages.values() if stage.label == "weight_averaging, seed 0")
    clean = pd.read_parquet(finished / "clean.parquet")
    for run in plan.task_runs:
        (found,) = (one for one in run.clean if "experts_ensemble" in one.target.columns)
        task, head = bench.task(plan.stages[found.key].task), bench.head(found.target.head)  # type: ignore[attr-defined]
        total = np.zeros((len(task.test.labels), 3))
        for expert in bench.experts(merge.backbone, merge.ingredients).values():  # public, which has no task, too
            with torch.no_grad():
                features = expert.eval()(task.test.images[:]).double().numpy()
            logits = features @ head.weight.double().numpy().T + head.bias.double().numpy()
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            total += weights / weights.sum(axis=1, keepdims=True)
        rows = clean[(clean["task"] == run.task) & (clean["model"] == "experts_ensemble")].sort_values("image")
        assert rows["prediction"].tolist() == total.argmax(axis=1).tolist()


def test_routing_is_the_tasks_own_expert_and_no_stage_of_its_own(finished: Path, tmp_path: Path) -> None:
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    routed, expert = (
        outcomes[outcomes["target"] == name].drop(columns="target").reset_index(drop=True)
        for name in ("experts_routed", "expert")
    )
    pd.testing.assert_frame_equal(routed, expert)
    assert len(routed) == 2 * 2 * 12
    content = yaml.safe_load((finished / "study.yaml").read_text())
    keys = {}
    for references in ([], ["experts_routed"], ["experts_ensemble"]):
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(content | {"references": references}))
        keys[tuple(references)] = {*make_plan(load_study(tmp_path / "study.yaml")).stages}
    assert keys[()] == keys["experts_routed",]
    assert len(keys["experts_ensemble",] - keys[()]) == 2 * (1 + 2)  # per task: clean, and each surrogate's sweep


def test_references_are_shown_and_never_ranked(finished: Path) -> None:
    content = json.loads((finished / "summary.json").read_text())
    assert content["run"]["references"] == REFERENCES
    assert content["run"]["methods"] == ["weight_averaging", "task_arithmetic"]
    ranked = {method["name"] for found in content["standings"] for method in found["methods"]}
    assert ranked == {"weight_averaging", "task_arithmetic"}
    assert not any(name in json.dumps(claim) for claim in content["claims"] for name in REFERENCES)
    assert {*REFERENCES} <= {*pd.read_csv(finished / "results.csv")["target"]}
    page = (finished / "report.html").read_text()
    assert "all experts, averaged" in page
    assert "experts, routed by task" in page
    assert not [*misfits(load_run(finished))]  # what a leaderboard asks of a run
    assert holds("expert", "experts_routed")
    assert not holds("pretrained", "experts_routed")


def test_a_study_without_them_reads_as_ever(tiny_vit: Path, tmp_path: Path) -> None:
    assert "references" not in load_study(written(tmp_path, tiny_vit, references=[])).to_yaml()


def test_a_task_without_an_expert_is_routed_nowhere(tiny_vit: Path, tmp_path: Path) -> None:
    models = save_tiny_models(tmp_path, tiny_vit)
    files = {"from": "files", "files": {"stripes": str(models / "public.safetensors")}}
    study = load_study(written(tmp_path, tiny_vit, experts=files, surrogates=["pretrained"]))
    answering = {
        run.task: {name for one in run.clean for name in one.target.columns} for run in make_plan(study).task_runs
    }
    assert answering["stripes"] - answering["blobs"] == {"expert", "experts_routed"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"references": ["experts"]}, "references"),
        ({"references": ["experts_ensemble", "experts_ensemble"]}, "'experts_ensemble' is given twice"),
        ({"merging": [{"method": "ties", "label": "experts_routed"}]}, "'experts_routed' is given twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_a_line(tiny_vit: Path, tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        load_study(written(tmp_path, tiny_vit, **changes))
    assert all("\n" not in fault for fault in caught.value.faults)
