"""Defenses that mix weights, train the base or keep what they train, in studies: what is made of what, and what is
refused before anything runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

import mergerisk as mr
from mergerisk.defenses import TrainingData
from mergerisk.errors import UserError
from mergerisk.finetuning import FineTuning, fine_tune
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.kinds.from_base import ExpertFromBase, MergeFromBase
from mergerisk.study.kinds.mix import Mix
from mergerisk.study.kinds.train import Train
from mergerisk.study.workbench import Compute, Workbench
from tests.study.test_trained_defenses import of, run_defended
from tests.tiny import MINIMAL, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study.plan import Plan

SMALL = {"steps": 2, "batch_size": 16, "learning_rate": 0.001}
ENTRIES: list[dict[str, Any]] = [
    {"defense": "robust_vector", "of": "weight_averaging", "training": SMALL, "sweep": {"scale": [0, 0.5]}},
    {"defense": "robust_soup", "of": "weight_averaging", "training": SMALL, "label": "soup"},
    {
        "defense": "fare",
        "of": "weight_averaging",
        "stage": "before_fine_tuning",
        "label": "robust",
        "images": "calibration",
        **SMALL,
    },
    {
        "defense": "private_tuning",
        "of": "weight_averaging",
        "stage": "before_merging",
        "ingredients": "attacked",
        "label": "private",
    },
    {"defense": "private_tuning", "of": "weight_averaging", "stage": "before_fine_tuning", "label": "own_base"},
]
VECTOR = "weight_averaging+robust_vector@0.5"
SURROGATES = ["expert", f"aware/{VECTOR}", "aware/soup", "aware/robust", "aware/private", "aware/own_base"]


@pytest.fixture(scope="module")
def finished(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_defended(tmp_path_factory.mktemp("mixed"), tiny_vit, ENTRIES, SURROGATES)


@pytest.fixture(scope="module")
def plan(finished: Path) -> Plan:
    return make_plan(load_study(finished / "study.yaml"))


def made(plan: Plan, label: str, task: str, *, held: bool = False) -> Any:
    """The stage behind a target, or a surrogate."""
    return plan.stages[of(plan, label, task, held=held).encoder.key]  # type: ignore[union-attr]


def states(plan: Plan, bench: Workbench, label: str, task: str = "blobs") -> dict[str, torch.Tensor]:
    variant = of(plan, label, task)
    return dict(bench.model(variant.backbone, variant.encoder).encoder.state())


def test_a_mix_is_that_of_the_call_in_python(finished: Path, plan: Plan) -> None:
    study = load_study(finished / "study.yaml")
    assert [*make_plan(parse_study(yaml.safe_load(study.to_yaml()))).stages] == [*plan.stages]
    bench, merged = Workbench(Store(finished / "store"), Compute()), of(plan, "weight_averaging", "blobs")
    assert of(plan, "weight_averaging+robust_vector@0", "blobs").encoder == merged.encoder  # the curve's start
    data = {}
    for task in ("stripes", "blobs"):
        training = made(plan, "soup", task)
        assert isinstance(training, Mix)
        (trained, _) = (plan.stages[member.key] for member in training.members if member is not None)
        assert isinstance(trained, Train)
        train = bench.task(trained.tasks[task]).train
        data[task] = TrainingData(train.images, bench.head(trained.heads[task]), train.labels)
    base = bench.base(merged.backbone)
    start = bench.model(merged.backbone, merged.encoder).encoder
    for label, name, given in ((VECTOR, "robust_vector", {"scale": 0.5}), ("soup", "robust_soup", {})):
        defense: Any = mr.defenses.create(name, training=SMALL, **given)
        expected, found = defense.mix(start, base, data).state(), states(plan, bench, label)
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
        assert not torch.equal(found["layernorm.weight"], start.state()["layernorm.weight"])


def test_a_grid_shares_what_is_trained(tiny_vit: Path, tmp_path: Path) -> None:
    entry = {"defense": "robust_soup", "of": "weight_averaging", "training": SMALL}
    few: dict[str, Any] = {"merging": ["weight_averaging"], "attacks": ["fgsm"], "surrogates": ["expert"]}
    plans = []
    for shares in ([0.5], [0, 0.5, 1, 1.5]):
        swept = [entry | {"sweep": {"share": shares}}]
        plans.append(make_plan(load_study(write_tiny_study(tmp_path, tiny_vit, **few, defenses=swept))))
    trained = [[key for key, stage in plan.stages.items() if stage.kind == "train"] for plan in plans]
    assert trained[0] == trained[1]
    assert len(trained[0]) == 2
    # At 1 and 0 a soup is one of the two itself.
    assert [sum(stage.kind == "mix" for stage in plan.stages.values()) for plan in plans] == [1, 2]


def test_experts_are_fine_tuned_from_the_trained_base_and_attackers_hold_them(finished: Path, plan: Plan) -> None:
    merge = made(plan, "robust", "blobs")
    assert isinstance(merge, MergeFromBase)
    bench = Workbench(Store(finished / "store"), Compute())
    base = plan.stages[merge.base.key]
    assert isinstance(base, Train)
    assert (base.defense, base.start, base.split, [*base.tasks]) == (
        "fare",
        None,
        "calibration",
        ["stripes", "blobs"],
    )
    expert = plan.stages[merge.ingredients["blobs"].key]
    assert isinstance(expert, ExpertFromBase)
    assert expert.base == merge.base
    start = bench.model(merge.backbone, merge.base).encoder
    tuned = fine_tune(
        start, bench.head(expert.head), bench.task(expert.task), recipe=FineTuning(**expert.fine_tuning), seed=0
    )
    kept = bench.model(merge.backbone, merge.ingredients["blobs"]).encoder.state()
    assert all(torch.equal(kept[name], tensor) for name, tensor in tuned.state().items())
    # A base is public, so that the expert from it is the attacker's; one that is kept is made by them anew.
    assert made(plan, "aware/robust", "blobs", held=True).key == expert.key
    own = plan.stages[made(plan, "own_base", "blobs").ingredients["blobs"].key]
    guess = made(plan, "aware/own_base", "blobs", held=True)
    assert isinstance(own, ExpertFromBase)
    assert isinstance(guess, ExpertFromBase)
    assert guess.seed != own.seed
    assert guess.base != own.base


def test_an_ingredient_that_is_not_public_replaces_the_attacked_tasks_own(plan: Plan) -> None:
    plain = made(plan, "weight_averaging", "blobs")
    for task, other in (("stripes", "blobs"), ("blobs", "stripes")):
        merge = made(plan, "private", task)
        assert merge.ingredients[other] == plain.ingredients[other]
        own = plan.stages[merge.ingredients[task].key]
        assert isinstance(own, Train)
        assert (own.defense, own.start, [*own.tasks]) == ("private_tuning", None, [task])
        assert own.parameters["epochs"] == 2  # as experts are
        guess = made(plan, "aware/private", task, held=True)
        assert (guess.defense, guess.seed != own.seed) == ("private_tuning", True)


def test_attackers_who_know_mix_their_expert_alike(plan: Plan) -> None:
    expert = of(plan, "expert", "blobs").encoder
    own = made(plan, f"aware/{VECTOR}", "blobs", held=True)
    assert isinstance(own, Mix)
    assert (own.members[0], own.weights) == (expert, (1.0, 0.5, -0.5))
    assert own.members[2] is None
    robust = plan.stages[own.members[1].key]  # type: ignore[union-attr]
    assert isinstance(robust, Train)
    assert [*robust.tasks] == ["blobs"]
    assert robust.seed != 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"defense": "robust_vector", "of": "emr"}, "emr has an encoder for each task"),
        ({"defense": "robust_vector", "of": "ties+jpeg"}, "ties+jpeg stands behind jpeg"),
        ({"defense": "robust_vector", "of": "service"}, "service is a black box"),
        ({"defense": "robust_vector", "of": "ties", "stage": "after_merging"}, "stage: robust_vector mixes what"),
        ({"defense": "robust_vector", "of": "ties", "scale": -1}, "scale"),
        (
            {"defense": "robust_vector", "of": "ties", "by": "tecoa", "images": "calibration"},
            "images: calibration images have no labels, and TeCoA learns from them",
        ),
        ({"defense": "robust_soup", "of": "ties", "robust": "x"}, "robust: robust_soup takes no robust base"),
        ({"defense": "median", "of": "ties", "robust": "x"}, "robust: median takes no robust base"),
        ({"defense": "fare", "of": "emr", "stage": "before_fine_tuning"}, "emr has an encoder for each task"),
        (
            {"defense": "pubdef", "of": "ties", "stage": "before_fine_tuning"},
            "stage: pubdef looks at public models, made from the base that it trains",
        ),
        (
            {"defense": "fare", "of": "ties", "ingredients": "attacked"},
            "ingredients: of stage: before_merging alone",
        ),
        ({"defense": "jpeg", "of": "ties", "sweep": {"quality": [50, 50]}}, "sweep: quality 50 is given twice"),
        ({"defense": "jpeg", "of": "ties", "sweep": [50]}, "sweep: name one hyper-parameter and its values"),
    ],
)
def test_what_is_wrong_is_said_first(entry: dict[str, Any], message: str) -> None:
    content = MINIMAL | {
        "tasks": ["digits", "letters"],
        "merging": ["ties", "emr"],
        "targets": [{"label": "service", "http": {"digits": "http://127.0.0.1:9/x"}, "queries": 10}],
        "defenses": [entry, {"defense": "jpeg", "of": "ties"}],
    }
    with pytest.raises(UserError, match=re.escape(message)):
        parse_study(content)


def test_a_robust_base_is_placed_beside_the_file_and_taken_as_it_is(tiny_vit: Path, tmp_path: Path) -> None:
    base = mr.load_encoder(str(tiny_vit))
    base.backbone.save_pretrained(tmp_path / "robust")
    entry = {"defense": "robust_vector", "of": "weight_averaging", "robust": "robust", "label": "given"}
    few: dict[str, Any] = {"merging": ["weight_averaging"], "attacks": ["fgsm"], "surrogates": ["aware/given"]}
    plan = make_plan(load_study(write_tiny_study(tmp_path, tiny_vit, **few, defenses=[entry])))
    mix, guess = made(plan, "given", "blobs"), made(plan, "aware/given", "blobs", held=True)
    assert mix.weights == (1.0, 1.0, -1.0)
    robust = plan.stages[mix.members[1].key]
    assert (robust.kind, robust.file) == ("expert", str(tmp_path / "robust"))  # type: ignore[attr-defined]
    assert guess.members[1:] == mix.members[1:]
    assert not any(stage.kind == "train" for stage in plan.stages.values())
