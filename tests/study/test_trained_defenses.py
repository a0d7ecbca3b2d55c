"""Defenses that train, in studies: what is trained, on what, and what is refused before anything runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import mergerisk as mr
from mergerisk.defenses import TrainingData
from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.errors import UserError
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.kinds.merge import Merge
from mergerisk.study.kinds.on_path import OnPath
from mergerisk.study.kinds.train import Train, TrainIngredient
from mergerisk.study.workbench import Compute, Workbench
from tests.tiny import MINIMAL, arrays, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.study.plan import Plan
    from mergerisk.study.variants.encoders import EncoderVariant

SMALL = {"steps": 2, "batch_size": 16, "epochs": 1}
ENTRIES: list[dict[str, Any]] = [
    {"defense": "jpeg", "of": "hardened", "quality": 60},  # before the entry that it names
    {"defense": "pubdef", "of": "weight_averaging", "label": "hardened", "learning_rate": 0.003, **SMALL},
    {
        "defense": "tecoa",
        "of": ["weight_averaging"],
        "stage": "before_merging",
        "ingredients": "all_but_attacked",
        "label": "others",
        "epsilon": 0.02,
    },
    {
        "defense": "fare",
        "of": "weight_averaging",
        "stage": "before_merging",
        "images": "calibration",
        "label": "kept",
        **SMALL,
    },
]
SURROGATES = ["expert", "white_box/hardened", "aware/hardened+jpeg", "adaptive/hardened+jpeg", "aware/others"]


def of(plan: Plan, label: str, task: str, *, held: bool = False) -> EncoderVariant:
    """The target, or surrogate, of that label."""
    if held:
        crafts = [stage for stage in plan.stages.values() if stage.kind == "craft"]
        found = [stage.surrogate for stage in crafts if label in stage.surrogate.columns]  # type: ignore[attr-defined]
    else:
        found = [one.target for run in plan.task_runs for one in run.clean if label in one.target.columns]
    (variant, *_) = [one for one in found if one.task == task]
    return variant  # type: ignore[no-any-return]


def run_defended(folder: Path, backbone: Path, entries: list[dict[str, Any]], surrogates: list[str]) -> Path:
    """The folder of a finished run of defended weight averaging."""
    study = write_tiny_study(
        folder,
        backbone,
        merging=["weight_averaging"],
        surrogates=surrogates,
        attacks=["fgsm"],
        budgets={"epsilon": ["8/255"]},
        images_per_task=6,
        checks={"images": 2, "steps": 10, "restarts": 2, "queries": 2},
        defenses=entries,
    )
    mr.run(study, folder / "run", workers=1, progress=False)
    return folder / "run"


@pytest.fixture(scope="module")
def finished(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_defended(tmp_path_factory.mktemp("trained"), tiny_vit, ENTRIES, SURROGATES)


@pytest.fixture(scope="module")
def plan(finished: Path) -> Plan:
    return make_plan(load_study(finished / "study.yaml"))


def test_targets_are_attacked_like_any_other_and_the_file_is_the_same_study(finished: Path, plan: Plan) -> None:
    outcomes = pd.read_parquet(finished / "outcomes.parquet")
    assert {"hardened", "hardened+jpeg", "others", "kept"} < set(outcomes["target"])
    assert {*SURROGATES} - {"white_box/hardened"} | {"hardened"} == set(outcomes["surrogate"])
    study = load_study(finished / "study.yaml")
    assert [*make_plan(parse_study(yaml.safe_load(study.to_yaml()))).stages] == [*plan.stages]
    assert study.defended["hardened+jpeg"] == "hardened"
    # From the base, an ingredient is trained as experts are; a merge by the defense's own recipe.
    assert {spec.label: spec.parameters["epochs"] for spec in study.defenses if "epochs" in spec.parameters} == {
        "hardened": 1,
        "others": 2,
        "kept": 1,
    }


def test_a_recipe_of_several_defenses_is_priced_against_the_merge_without_any(finished: Path) -> None:
    offers = {offer.priced.target: offer for offer in mr.prices(finished).offers}
    alone, both = offers["hardened"], offers["hardened+jpeg"]
    assert both.priced.undefended == alone.priced.undefended == "weight_averaging"
    assert both.priced.accuracy.undefended == alone.priced.accuracy.undefended
    assert both.cost.training == alone.cost.training > 0
    assert both.cost.undefended_seconds == alone.cost.undefended_seconds
    costs = pd.read_parquet(finished / "defense_costs.parquet").set_index("target")
    assert costs.loc["hardened+jpeg", "undefended"] == "hardened"
    assert both.cost.seconds == costs.loc["hardened+jpeg", "seconds"]


def test_a_merge_is_trained_on_all_tasks_with_each_tasks_own_public_models(finished: Path, plan: Plan) -> None:
    """The stage's result is that of the call in Python, on the training images alone."""
    bench = Workbench(Store(finished / "store"), Compute())
    target = of(plan, "hardened", "stripes")
    assert target.encoder == of(plan, "hardened", "blobs").encoder
    assert target.encoder is not None
    stage = plan.stages[target.encoder.key]
    assert isinstance(stage, Train)
    data, merged, base = {}, of(plan, "weight_averaging", "stripes"), bench.base(stage.backbone)
    assert stage.start == merged.encoder
    for task in ("stripes", "blobs"):
        expert = bench.model(stage.backbone, of(plan, "expert", task).encoder).encoder
        train = bench.task(stage.tasks[task]).train
        head = bench.head(stage.heads[task])
        data[task] = TrainingData(train.images, head, train.labels, [base, expert])
    defense = DEFENSES.create("pubdef", {"learning_rate": 0.003, **SMALL})
    start = bench.model(stage.backbone, merged.encoder).encoder
    expected = defense.train(start, data, seed=0).state()
    kept = bench.model(stage.backbone, target.encoder).encoder.state()
    assert all(torch.equal(kept[name], tensor) for name, tensor in expected.items())
    assert not torch.equal(start.state()["layernorm.weight"], kept["layernorm.weight"])
    shown = sum(len(given.images) for given in data.values())
    assert stage.cost() == {"training": 3 * shown, "gradient": 2 * 2 * shown}  # clean and K = 2; K times two steps


def test_ingredients_are_trained_before_they_are_merged(plan: Plan) -> None:
    plain = plan.stages[of(plan, "weight_averaging", "blobs").encoder.key]  # type: ignore[union-attr]
    assert isinstance(plain, Merge)
    for task, other in (("stripes", "blobs"), ("blobs", "stripes")):
        merge = plan.stages[of(plan, "others", task).encoder.key]  # type: ignore[union-attr]
        assert isinstance(merge, Merge)
        assert [*merge.ingredients] == [*plain.ingredients]
        assert merge.ingredients[task] == plain.ingredients[task]  # the attacked task's own is the public one
        trained = trained_for(plan, "others", task, other)
        assert (trained.start, [*trained.tasks], trained.defense) == (None, [other], "tecoa")
    for task in ("stripes", "blobs"):  # it reads no label: what is trained is the expert
        assert trained_for(plan, "kept", "blobs", task).start == plain.ingredients[task]
        assert trained_for(plan, "kept", "blobs", task).split == "calibration"


def trained_for(plan: Plan, label: str, task: str, ingredient: str) -> TrainIngredient:
    """An ingredient of the merge that is attacked on a task."""
    merge = plan.stages[of(plan, label, task).encoder.key]  # type: ignore[union-attr]
    assert isinstance(merge, Merge)
    trained = plan.stages[merge.ingredients[ingredient].key]
    assert isinstance(trained, TrainIngredient)
    return trained


def test_attackers_who_know_train_their_expert_alike(plan: Plan) -> None:
    expert = of(plan, "expert", "blobs").encoder
    white = of(plan, "hardened", "blobs", held=True)
    assert white.encoder == of(plan, "hardened", "blobs").encoder
    aware: Any = of(plan, "aware/hardened+jpeg", "blobs", held=True)
    assert (aware.kind, aware.defense) == ("adaptive", "jpeg")
    trained = plan.stages[aware.of.encoder.key]
    assert isinstance(trained, Train)
    assert (trained.start, [*trained.tasks], trained.defense) == (expert, ["blobs"], "pubdef")
    adaptive: Any = of(plan, "adaptive/hardened+jpeg", "blobs", held=True)
    assert (adaptive.defense, adaptive.of.encoder) == ("jpeg", expert)
    # Trained as the ingredient was, but by the attacker, who draws otherwise.
    own = plan.stages[of(plan, "aware/others", "blobs", held=True).encoder.key]  # type: ignore[union-attr]
    assert isinstance(own, TrainIngredient)
    assert (own.defense, [*own.tasks], own.start) == ("tecoa", ["blobs"], None)
    assert own.seed != trained_for(plan, "others", "stripes", "blobs").seed


def test_hidden_merges_are_points_beyond_and_before_the_merge(tiny_vit: Path, tmp_path: Path) -> None:
    """Each with a λ of its own; DARE's with draws of their own; an attacker guesses both anew."""
    study = write_tiny_study(
        tmp_path,
        tiny_vit,
        merging=["weight_averaging", "dare"],
        surrogates=[
            "white_box/dare+ensemble_of_merges",
            "aware/dare+ensemble_of_merges",
            "aware/fort+jpeg",
            "white_box/dare+lambda_per_query",
            "aware/dare+lambda_per_query",
        ],
        attacks=["fgsm"],
        defenses=[
            {"defense": "secrecy", "of": "weight_averaging", "label": "fort", "seed": 5},
            {"defense": "ensemble_of_merges", "of": "dare", "members": 3, "low": 0.9, "high": 1.2},
            {"defense": "lambda_per_query", "of": "dare", "members": 3},
            {"defense": "jpeg", "of": "fort"},
        ],
    )
    plan = make_plan(load_study(study))
    plain = of(plan, "weight_averaging", "blobs").encoder
    path = plan.stages[of(plan, "fort", "blobs").encoder.key]  # type: ignore[union-attr]
    assert isinstance(path, OnPath)
    assert (path.merge, 0.7 <= path.at <= 1.3, path.at != 1) == (plain, True, True)
    guess: Any = of(plan, "aware/fort+jpeg", "blobs", held=True)
    guessed = plan.stages[guess.of.encoder.key]
    assert isinstance(guessed, OnPath)
    assert (guess.defense, guessed.merge, guessed.at != path.at) == ("jpeg", plain, True)
    several: Any = of(plan, "dare+ensemble_of_merges", "stripes")
    assert (several.kind, several.combine, several.passes) == ("ensemble", "probabilities", 3)
    attackers: Any = of(plan, "aware/dare+ensemble_of_merges", "stripes", held=True)
    made: list[Any] = [plan.stages[one.key] for each in (several, attackers) for one in each.members.values()]
    assert len({stage.at for stage in made}) == 6
    assert all(0.9 <= stage.at <= 1.2 for stage in made)
    merges: list[Any] = [plan.stages[stage.merge.key] for stage in made]
    assert len({merge.seed for merge in merges}) == 6
    assert of(plan, "dare+ensemble_of_merges", "stripes", held=True).members == several.members  # type: ignore[attr-defined]
    # One drawn for each picture: who knows that averages the losses of their own guesses, who holds them, of all.
    one: Any = of(plan, "dare+lambda_per_query", "stripes")
    assert (one.kind, one.passes, len(one.members)) == ("drawn", 1, 3)
    white, aware = (
        next(
            stage.surrogate  # type: ignore[attr-defined]
            for stage in plan.stages.values()
            if stage.kind == "craft" and label in stage.surrogate.columns  # type: ignore[attr-defined]
        )
        for label in ("dare+lambda_per_query", "aware/dare+lambda_per_query")
    )
    assert (white.kind, white.combine, white.members) == ("ensemble", "loss", one.members)
    assert (aware.kind, aware.combine, len({*aware.members.values()} & {*one.members.values()})) == (
        "ensemble",
        "loss",
        0,
    )


def test_attacked_images_are_never_read(finished: Path, plan: Plan, tiny_vit: Path, tmp_path: Path) -> None:
    """Other test images, and the trained models are the same to the bit."""
    study = load_study(finished / "study.yaml")
    write_tiny_study(tmp_path, tiny_vit)
    for kind in ("stripes", "blobs"):
        content = arrays(kind)
        content["images"][content["split"] == 1] = np.random.default_rng(3).integers(
            0, 256, content["images"][content["split"] == 1].shape, dtype=np.uint8
        )
        np.savez(tmp_path / f"{kind}.npz", **content)
    changed = yaml.safe_load(study.to_yaml()) | {
        "tasks": [str(tmp_path / f"{kind}.npz") for kind in ("stripes", "blobs")],
        "surrogates": ["expert"],
        "defenses": [ENTRIES[1]],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(changed))
    mr.run(tmp_path / "study.yaml", tmp_path / "run", workers=1, progress=False)
    other = make_plan(load_study(tmp_path / "run" / "study.yaml"))
    states = []
    for each, folder in ((plan, finished), (other, tmp_path / "run")):
        bench, target = Workbench(Store(folder / "store"), Compute()), of(each, "hardened", "blobs")
        states.append(bench.model(target.backbone, target.encoder).encoder.state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("entry", "changes", "message"),
    [
        ({"of": "tis"}, {}, "no merge or model 'tis' (did you mean 'ties'?)"),
        ({"of": "service"}, {}, "service is a black box, which can only be asked"),
        ({"of": "itself", "label": "itself"}, {}, "defends itself, in the end"),
        ({"of": "surgery"}, {}, "surgery has a correction on top"),
        ({"of": "emr"}, {}, "emr has an encoder for each task; name a merge that serves all of them"),
        ({"of": "ties@placebo"}, {}, "ties@placebo is a merge that something is changed about"),
        ({"of": "ties+jpeg"}, {}, "ties+jpeg stands behind jpeg; train what is behind it, and put it around that"),
        ({"of": "ties", "ingredients": "all"}, {}, "ingredients: of stage: before_merging alone"),
        ({"of": "ties+jpeg", "stage": "before_merging"}, {}, "takes a merge as it is, by its label in merging"),
        ({"of": "ties", "stage": "between"}, {}, "stage"),
        ({"of": "ties", "images": "calibration"}, {}, "images: calibration images have no labels"),
        ({"defense": "secrecy", "of": "emr"}, {}, "emr has an encoder for each task"),
        ({"defense": "secrecy", "of": "ties+jpeg"}, {}, "secrecy takes a merge as it is, by its label in merging"),
        ({"defense": "secrecy", "of": "ties", "low": 1.5}, {}, "low: must be at most high, 1.3, got 1.5"),
        ({"of": "ties", "public": "aware/x"}, {}, "public: aware is no public model"),
        ({"of": "ties", "public": "expert/digit"}, {}, "public: no expert 'digit' (did you mean 'digits'?)"),
        ({"of": "ties", "epsilon": 0}, {}, "epsilon: must be above 0"),
        ({"defense": "fare", "of": "ties", "public": "expert"}, {}, "public: fare looks at no public models"),
        (
            {"defense": "median", "of": "ties", "stage": "before_merging"},
            {},
            "stage: median trains nothing; leave it out",
        ),
        (
            {"of": "ties", "stage": "before_merging"},
            {"ingredients": {"guest": "starter-vit"}},
            "trains every ingredient on its task, and 'guest' has none",
        ),
    ],
)
def test_what_is_wrong_is_said_first(entry: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    content = MINIMAL | {
        "tasks": ["digits", "letters"],
        "merging": [
            "ties",
            {"method": "ties", "placebo": True},
            {"method": "ties+surgery", "label": "surgery"},
            "emr",
        ],
        "targets": [{"label": "service", "http": {"digits": "http://127.0.0.1:9/x"}, "queries": 10}],
        "defenses": [{"defense": "pubdef", **entry}, {"defense": "jpeg", "of": "ties"}],
        **changes,
    }
    with pytest.raises(UserError, match=re.escape(message)):
        parse_study(content)
