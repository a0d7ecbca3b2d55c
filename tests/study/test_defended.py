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
from mergerisk.study.kinds.craft import Craft
from mergerisk.study.kinds.expert import Expert
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.variants.defended import AdaptiveVariant, DefendedVariant
from mergerisk.study.workbench import Compute, Workbench
from tests.tiny import MINIMAL, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study import Plan

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
        surrogates=["expert", "white_box/coarse", "aware/coarse", "own_merge", "unseen"],
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
            if isinstance(target, DefendedVariant) and not isinstance(target, AdaptiveVariant):
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
    assert set(outcomes["surrogate"]) == {"expert", "coarse", "aware/coarse", "own_merge", "unseen"}
    # Rounding has no gradient; a white box steps around that.
    assert (outcomes["zero_gradients"] == 0).all()
    assert "weight_averaging+bit_depth" in (finished / "report.html").read_text()


def test_who_knows_a_defense_attacks_that_model_alone(finished: Path) -> None:
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    shown = outcomes.groupby("surrogate", observed=True)["target"].agg(lambda names: {*names})
    assert shown["aware/coarse"] == {"coarse"}
    assert shown["own_merge"] == shown["unseen"] == shown["expert"] == {*outcomes["target"]}


def test_who_knows_a_defense_crafts_through_it(finished: Path) -> None:
    """FGSM by hand: the gradient that rounded pixels have on the model that the attacker holds, which is the
    defended merge for the white box, and the attacked task's expert for others."""
    plan = make_plan(load_study(finished / "study.yaml"))
    bench = Workbench(Store(finished / "store"), Compute())
    seen = set()
    for sweep in plan.sweeps:
        if sweep.surrogate not in {"coarse", "aware/coarse"}:
            continue
        stage = plan.stages[sweep.crafted[0]]
        assert isinstance(stage, Craft)
        assert isinstance(stage.surrogate, AdaptiveVariant)
        held = next(
            target.of if isinstance(target, DefendedVariant) else target.alone("expert")
            for run in plan.task_runs
            if run.task == sweep.task
            for target in (evaluation.target for evaluation in run.clean)
            if ("coarse" if sweep.surrogate == "coarse" else "expert") in target.columns
        )
        kept = bench.crafted(stage.key)
        images = bench.task(stage.task).test.images[kept["indices"]]
        rounded = images.round().requires_grad_()
        loss = torch.nn.functional.cross_entropy(held.classifier(bench)(rounded), kept["labels"], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, rounded)
        # Rounding may turn a gradient of nearly nothing around.
        certain = gradient.abs() > 1e-6 * gradient.abs().max()
        expected = (images + stage.epsilon * gradient.sign()).clamp(0, 1)
        torch.testing.assert_close(kept["adversarial"][-1][certain], expected[certain], atol=1e-6, rtol=0)
        seen.add(sweep.surrogate)
    assert seen == {"coarse", "aware/coarse"}


def planned(**changes: Any) -> Plan:
    return make_plan(parse_study(MINIMAL | {"tasks": ["digits", "letters"]} | changes))


def test_a_merge_of_ones_own_is_the_same_merge_where_it_is_made_alike() -> None:
    made = {"method": "ties", "scaling": 0.5, "label": "mine"}
    plan = planned(merging=[made], surrogates=["merged/mine", "own_merge/mine", "own_merge/ties", "own_merge"])
    keys = {sweep.surrogate: sweep.crafted for sweep in plan.sweeps if sweep.task == "digits"}
    assert keys["mine"] == keys["own_merge/mine"]
    assert len({*keys.values()}) == 3
    merges = [stage for stage in plan.stages.values() if isinstance(stage, Merge)]
    assert [(merge.method, merge.parameters.get("scaling")) for merge in merges] == [
        ("ties", 0.5), ("ties", None), ("weight_averaging", None),
    ]  # fmt: skip


def test_what_no_defense_has_seen_is_neither_expert_nor_outsider() -> None:
    plan = planned(surrogates=["expert", "outsider", "unseen"])
    experts = [stage for stage in plan.stages.values() if isinstance(stage, Expert)]
    assert len({stage.seed for stage in experts}) == 3
    assert len({tuple(stage.inputs.items()) for stage in experts}) == 2


def test_a_name_alone_stands_for_every_defended_model() -> None:
    defenses = [{"defense": "jpeg", "of": "ties"}, {"defense": "median", "of": "ties"}]
    trained = parse_study(
        MINIMAL | {"defenses": [*defenses, {"defense": "fare", "of": "ties"}], "surrogates": ["adaptive", "aware"]}
    )
    assert [spec.knows for spec in trained.surrogates] == [
        "ties+jpeg", "ties+median", "ties+jpeg", "ties+median", "ties+fare",
    ]  # fmt: skip
    names = ["expert", "aware", "adaptive", "white_box"]
    study = parse_study(MINIMAL | {"defenses": defenses, "surrogates": names})
    both = ["ties+jpeg", "ties+median"]
    assert [spec.label for spec in study.surrogates] == [
        "expert", *(f"aware/{of}" for of in both), *(f"adaptive/{of}" for of in both), *both,
    ]  # fmt: skip
    assert parse_study(yaml.safe_load(study.to_yaml())).surrogates == study.surrogates


def test_work_counts_how_often_a_defended_answer_asks() -> None:
    """Votes of the defended model; draws, steps and what is shown of the attacker."""
    plan = planned(
        defenses=[{"defense": "smoothing", "of": "ties", "votes": 7}, {"defense": "median", "of": "ties"}],
        surrogates=["aware"],
        attacks=[{"attack": "i_fgsm", "steps": 3}],
        images_per_task=10,
    )
    costs = {stage.label: dict(stage.cost()) for stage in plan.stages.values() if "digits" in stage.label}
    aware = "i_fgsm on digits from aware/ties+"
    assert costs[f"{aware}smoothing, ε = 2/255, seed 0"] == {"gradient": 10 * 3 * 10}
    assert costs[f"{aware}median, ε = 2/255, seed 0"] == {"gradient": 10 * 3}
    assert costs[f"{aware}smoothing against ties+smoothing"] == {"forward": 10 * 7}
    assert costs[f"{aware}smoothing against aware/ties+smoothing"] == {"forward": 10 * 10}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surrogates": ["aware/ties+jpg"]}, "no defended model 'ties+jpg' (did you mean 'ties+jpeg'?)"),
        ({"surrogates": ["adaptive/ties"]}, "surrogates: adaptive/ties: no defended model 'ties'"),
        ({"surrogates": ["aware"], "defenses": []}, "aware: say which"),
        (
            {"surrogates": ["adaptive/ties+fare"], "defenses": [{"defense": "fare", "of": "ties"}]},
            "surrogates: adaptive/ties+fare: nothing stands before ties+fare, whose weights are changed; name aware/",
        ),
        ({"surrogates": ["unseen/digits"]}, "'unseen/digits': must be 'unseen'"),
        ({"surrogates": ["own_merge/tiies"]}, "unknown merging method 'tiies' (did you mean 'ties'?)"),
        ({"surrogates": ["own_merge/fisher"]}, "fisher reads images of every ingredient's task"),
        ({"surrogates": ["own_merge/ties+surgery"]}, "name the method alone"),
        ({"surrogates": [{"ensemble": ["expert", "aware/ties+jpeg"]}]}, "aware cannot be part of an ensemble"),
        (
            {"surrogates": ["aware"], "experts": {"from": "files", "files": {"digits": "x"}}},
            "surrogates: aware: task 'letters' has none",
        ),
    ],
)
def test_an_attacker_that_does_not_apply_is_said_first(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        planned(**({"defenses": [{"defense": "jpeg", "of": "ties"}]} | changes))


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
