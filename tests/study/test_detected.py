"""Detectors in studies: where alarms begin, what is rejected, who crafts on what, and what is said first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import mergerisk as mr
from mergerisk.attacks import REJECTED
from mergerisk.defenses import disagreement
from mergerisk.errors import UserError
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.kinds.set_threshold import SetThreshold
from mergerisk.study.workbench import Compute, Workbench
from tests.tiny import MINIMAL, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study.plan import Plan

LABEL = "ties+detector"


@pytest.fixture(scope="module")
def finished(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detected")
    study = write_tiny_study(
        folder,
        tiny_vit,
        merging=["ties"],
        surrogates=["expert", "own_merge", f"white_box/{LABEL}", f"aware/{LABEL}", f"adaptive/{LABEL}"],
        attacks=["fgsm"],
        budgets={"epsilon": ["8/255"]},
        checks={"images": 20, "steps": 10, "restarts": 2, "queries": 5},
        defenses=[{"defense": "detector", "of": "ties", "false_alarms": 0.3}],
    )
    mr.run(study, folder / "run", workers=1, progress=False)
    return folder / "run"


@pytest.fixture(scope="module")
def plan(finished: Path) -> Plan:
    return make_plan(load_study(finished / "study.yaml"))


def of(plan: Plan, label: str, task: str) -> Any:
    """The surrogate of that label."""
    sweep = next(one for one in plan.sweeps if (one.surrogate, one.task) == (label, task))
    return plan.stages[sweep.crafted[0]].surrogate  # type: ignore[attr-defined]


def test_alarms_begin_where_calibration_images_say_and_rejected_images_are_lost(
    finished: Path, plan: Plan
) -> None:
    bench = Workbench(Store(finished / "store"), Compute())
    clean = pd.read_parquet(finished / "clean.parquet")
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    rejected = 0
    for name in ("stripes", "blobs"):
        detected = of(plan, LABEL, name)
        stage = plan.stages[detected.threshold.key]
        assert isinstance(stage, SetThreshold)
        task, models = bench.task(stage.task), [stage.of.classifier(bench), stage.beside.classifier(bench)]
        assert stage.cost() == {"forward": 2 * len(task.calibration.images)}

        def apart(images: Any, models: Any = models) -> Any:
            return disagreement(*(model(images[:]) for model in models)).detach().numpy()

        scores = np.sort(apart(task.calibration.images))
        threshold = scores[int(np.ceil((len(scores) + 1) * 0.7)) - 1]
        assert np.isclose(bench.arrays(stage.key)["threshold"], threshold, rtol=1e-5)
        found = apart(task.test.images)
        alarmed = found > threshold
        certain = np.abs(found - threshold) > 1e-4 * threshold  # of rounding in other batches
        rows = clean[(clean["task"] == name) & (clean["model"] == LABEL)].sort_values("image")
        plain = clean[(clean["task"] == name) & (clean["model"] == "ties")].sort_values("image")
        expected = np.where(alarmed, REJECTED, plain["prediction"])
        assert (rows["prediction"].to_numpy() == expected)[certain].all()
        rejected += int(alarmed.sum())
    assert rejected  # else nothing was seen
    assert set(outcomes["target"]) > {LABEL}
    shown = outcomes.groupby("surrogate", observed=True)["target"].agg(lambda names: {*names})
    assert shown[f"aware/{LABEL}"] == shown[f"adaptive/{LABEL}"] == {LABEL}
    assert LABEL in (finished / "report.html").read_text()


def test_attackers_hold_a_model_that_the_ingredient_can_disagree_with(plan: Plan) -> None:
    """The task's own expert is what the merge is compared with; beside itself it agrees with everything."""
    white, aware, adaptive = (of(plan, f"{who}{LABEL}", "blobs") for who in ("", "aware/", "adaptive/"))
    assert {one.kind for one in (white, aware, adaptive)} == {"detected"}
    assert white.threshold == aware.threshold == adaptive.threshold
    expert, merge = (of(plan, label, "blobs").encoder for label in ("expert", "own_merge"))
    assert white.beside.encoder == aware.beside.encoder == adaptive.of.encoder == expert
    assert aware.of.encoder == merge
    assert white.passes == 2


def test_checks_are_made_of_it(finished: Path) -> None:
    checks = pd.read_parquet(finished / "defenses.parquet")
    costs = pd.read_parquet(finished / "defense_costs.parquet")
    assert (checks.loc[checks["target"] == LABEL, "images"] > 0).all()
    assert costs["passes"].tolist() == [2]
    assert (costs["bytes"] > 1.5 * costs["undefended_bytes"]).all()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"false_alarms": 0}, "false_alarms"),
        ({"beside": "aware/x"}, "beside: aware is no public model"),
        ({"beside": "expert/digit"}, "beside: no expert 'digit' (did you mean 'digits'?)"),
        ({"stage": "after_merging"}, "stage: detector trains nothing"),
        ({"of": "service"}, "service is a black box"),
        (
            {"defense": "jpeg", "of": "watched"},
            "watched rejects images, which comes last; put detector around the rest",
        ),
        ({"defense": "jpeg", "beside": "expert"}, "beside: jpeg compares nothing; leave it out"),
    ],
)
def test_what_is_wrong_is_said_first(entry: dict[str, Any], message: str) -> None:
    content = MINIMAL | {
        "tasks": ["digits", "letters"],
        "merging": ["ties"],
        "targets": [{"label": "service", "http": {"digits": "http://127.0.0.1:9/x"}, "queries": 10}],
        "defenses": [
            {"defense": "detector", "of": "ties", **entry},
            {"defense": "detector", "of": "ties", "label": "watched"},
        ],
    }
    with pytest.raises(UserError, match=re.escape(message)):
        parse_study(content)


def test_too_few_calibration_images_are_said_first(tiny_vit: Path, tmp_path: Path) -> None:
    entry = {"defense": "detector", "of": "weight_averaging", "false_alarms": 0.001}
    study = write_tiny_study(
        tmp_path, tiny_vit, merging=["weight_averaging"], attacks=["fgsm"], surrogates=["expert"], defenses=[entry]
    )
    with pytest.raises(UserError, match=r"calibration images, and detector needs 999"):
        mr.run(study, tmp_path / "run", workers=1, progress=False)
