"""Defended targets in studies: what is asked is the defended model, and what is wrong is said first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
import yaml

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.variants.defended import DefendedVariant
from mergerisk.study.workbench import Compute, Workbench
from tests.tiny import MINIMAL, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

MERGING = ["weight_averaging", "ties+surgery"]
DEFENSES = [
    {"defense": "bit_depth", "of": MERGING, "bits": 2},
    {"defense": "bit_depth", "of": "weight_averaging", "label": "coarse", "bits": 1},
]
LABELS = ["weight_averaging+bit_depth", "ties+surgery+bit_depth", "coarse"]


@pytest.fixture(scope="module")
def finished(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("defended")
    study = write_tiny_study(
        folder,
        tiny_vit,
        merging=MERGING,
        surrogates=["expert", "merged/coarse"],
        attacks=["fgsm"],
        defenses=DEFENSES,
    )
    mr.run(study, folder / "run", workers=1, progress=False)
    return folder / "run"


def test_predictions_are_those_of_the_undefended_model_on_rounded_pixels(finished: Path) -> None:
    plan = make_plan(load_study(finished / "study.yaml"))
    bench = Workbench(Store(finished / "store"), Compute())
    clean = pd.read_parquet(finished / "clean.parquet")
    seen = set()
    for run in plan.task_runs:
        images = bench.task(plan.stages[run.clean[0].key].task).test.images  # type: ignore[attr-defined]
        for evaluation in run.clean:
            target = evaluation.target
            if isinstance(target, DefendedVariant):
                levels = 2 ** target.parameters["bits"] - 1
                rounded = torch.round(images[:] * levels) / levels
                said = target.of.answer(bench, rounded)[0].tolist()
                (label,) = target.columns
                rows = clean[(clean["task"] == run.task) & (clean["model"] == label)].sort_values("image")
                assert rows["prediction"].tolist() == said, label
                seen.add(label)
    assert seen == {*LABELS}


def test_a_defended_model_is_attacked_and_held_like_any_other(finished: Path) -> None:
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    assert {*LABELS, *MERGING} < set(outcomes["target"])
    assert set(outcomes["surrogate"]) == {"expert", "coarse"}
    # Rounding has no gradient, so that nothing is crafted on it: said, not hidden.
    assert (outcomes[outcomes["surrogate"] == "coarse"]["zero_gradients"] > 0).all()
    assert "weight_averaging+bit_depth" in (finished / "report.html").read_text()


def test_the_file_that_a_run_leaves_is_the_same_study(finished: Path) -> None:
    study = load_study(finished / "study.yaml")
    assert study.defended == {
        "weight_averaging+bit_depth": "weight_averaging",
        "ties+surgery+bit_depth": "ties+surgery",
        "coarse": "weight_averaging",
    }
    again = parse_study(yaml.safe_load(study.to_yaml()))
    assert [*make_plan(study).stages] == [*make_plan(again).stages]


@pytest.mark.parametrize(
    ("defense", "message"),
    [
        ({"defense": "bit_depth"}, "say what is defended"),
        ({"defense": "bit_depht", "of": "ties"}, "unknown defense 'bit_depht' (did you mean 'bit_depth'?)"),
        ({"defense": "bit_depth", "of": "tis"}, "no merge or model 'tis' (did you mean 'ties'?)"),
        ({"defense": "bit_depth", "of": "ties", "bits": 9}, "bits"),
        ({"defense": "bit_depth", "of": ["ties", "ties"]}, "given twice"),
        ({"defense": "bit_depth", "of": "ties", "label": "ties"}, "target label 'ties' is given twice"),
    ],
)
def test_what_is_wrong_is_said_first(defense: dict[str, Any], message: str) -> None:
    content = MINIMAL | {"defenses": [defense]}
    with pytest.raises(UserError, match=re.escape(message)):
        parse_study(content)


def test_an_unknown_table_is_said_first() -> None:
    content = MINIMAL | {"tables": ["confidence"]}
    with pytest.raises(UserError, match=r"tables\[0\]: unknown table 'confidence'"):
        parse_study(content)
