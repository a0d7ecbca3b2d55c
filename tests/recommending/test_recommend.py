"""A recommendation from start to end, on a tiny study: chosen on some images, measured on others, and taken again."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.listeners import RunFinished, RunStarted, SearchEnded, SearchFinished, SearchRound, SearchStarted
from mergerisk.recipe import load_recipe, merge_checkpoints
from mergerisk.recommending.clock import Clock
from mergerisk.recommending.composing import compose, to_measure, to_search
from mergerisk.recommending.files import checkpoints
from mergerisk.recommending.recipe import Part, Recipe
from mergerisk.recommending.running import affordable
from mergerisk.recommending.scoring import front
from mergerisk.recommending.searching import ROUND
from mergerisk.recommending.spaces import reading, space_of, starts
from mergerisk.statistics.curves import crossings
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.executors.attempt import Outcome
from mergerisk.study.executors.events import StageEnded
from mergerisk.study.fields.search import Search
from mergerisk.study.kinds.craft import Craft
from mergerisk.study.kinds.held_out import HeldOut
from mergerisk.study.workbench import Compute, Workbench
from tests.cli.test_cli import call
from tests.listeners.test_trackers import tracked
from tests.tiny import MINIMAL, save_tiny_models, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from mergerisk.listeners import Event
    from mergerisk.recommending import Recommendation
    from mergerisk.study import Study

pytest.importorskip("optuna")

TRIALS = ROUND + 2


@pytest.fixture(scope="module")
def study(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_study(
        tmp_path_factory.mktemp("recommended"),
        tiny_vit,
        merging=["weight_averaging", {"method": "task_arithmetic", "scaling": 0.4}],
        attacks=["fgsm", "mi_fgsm"],
        surrogates=["expert"],
        experts={"fine_tune": {"epochs": 8, "learning_rate": 0.003, "batch_size": 16}},
        budgets={"epsilon": ["8/255", "24/255"], "steps": 2},
        checks={"images": 4, "steps": 10, "restarts": 2, "queries": 10},
        search={
            "merging": ["weight_averaging", "emr", {"method": "ties", "density": {"low": 0.2, "high": 1.0}}],
            "defenses": ["none", {"defense": "median", "size": 3}],
            "images_per_task": 12,
            "recipes": 2,
        },
    )


@pytest.fixture(scope="module")
def made(study: Path) -> Recommendation:
    return mr.recommend(study, study.parent / "out", time=None, trials=TRIALS, seed=1, progress=False)


def test_recipes_are_tried_on_other_images_than_they_are_measured_on(made: Recommendation, study: Path) -> None:
    asked = load_study(study)
    bench = Workbench(Store(made.folder / "store"), Compute())

    def attacked(base: Study) -> set[str]:
        plan = make_plan(compose(base, [made.tried[0].recipe])[0], further=False)
        found: set[str] = set()
        for stage in plan.stages.values():
            if isinstance(stage, Craft):
                indices = bench.arrays(stage.key)["indices"]
                found |= digests(bench.task(stage.task).test.images[indices])
        return found

    chosen_by, measured_on = attacked(to_search(asked)), attacked(to_measure(asked))
    assert len(chosen_by) == 24
    assert len(measured_on) == 24
    assert not chosen_by & measured_on
    held_out = [
        stage
        for stage in make_plan(compose(to_search(asked), [made.tried[0].recipe])[0], further=False).stages.values()
        if isinstance(stage, HeldOut)
    ]
    for stage in held_out:
        original, turned = bench.task(stage.task), bench.task(stage.result)
        assert digests(turned.test.images[:]) == digests(original.calibration.images[:])
        assert turned.test.labels.tolist() == original.calibration.labels.tolist()
        assert not digests(original.test.images[:]) & digests(turned.test.images[:])


def digests(images: torch.Tensor) -> set[str]:
    return {hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images}


def test_figures_are_those_of_the_attacked_images(made: Recommendation) -> None:
    outcomes = pd.read_parquet(made.folder / "run" / "outcomes.parquet")
    clean = pd.read_parquet(made.folder / "run" / "clean.parquet")
    assert made.recommended in {one.name for one in made.recipes}
    for one in (*made.recipes, *made.references):
        mine = clean[clean["model"] == one.name]
        by_task = (mine["prediction"] == mine["label"]).groupby(mine["task"], observed=True).mean()
        assert one.accuracy.value == pytest.approx(by_task.mean())
        rows = outcomes[outcomes["target"] == one.name]
        rows = rows[(rows["surrogate_clean"] == rows["label"]) & (rows["target_clean"] == rows["label"])]
        halves = []
        for _, several in rows.assign(wrong=rows["target_adversarial"] != rows["label"]).groupby(
            "surrogate", observed=True
        ):
            rates = several.groupby(["attack", "epsilon", "task"], observed=True)["wrong"].mean()
            curves = rates.groupby(["attack", "epsilon"], observed=True).mean().unstack("epsilon")
            strongest = curves.loc[curves.mean(axis=1).idxmax()].to_numpy()
            halves.append(crossings(strongest[None], np.array(made.epsilons))[0])
        assert one.epsilon50.value == pytest.approx(min(halves))
    defended = [one for one in made.recipes if one.recipe is not None and one.recipe.defenses]
    for one in defended:
        assert f"aware/{one.name}" in set(outcomes["surrogate"])
        assert one.checks is not None


def test_what_is_written_says_the_same(made: Recommendation) -> None:
    content = json.loads((made.folder / "recommendation.json").read_text())
    assert content["recommended"] == made.recommended
    assert len(content["tried"]) == len(made.tried) == TRIALS
    assert [one["name"] for one in content["recipes"]] == [one.name for one in made.recipes]
    rows = list(csv.DictReader((made.folder / "recommendation.csv").read_text().splitlines()))
    assert {row["name"] for row in rows} == {one.name for one in (*made.recipes, *made.references)}
    assert float(rows[0]["accuracy"]) == made.recipes[0].accuracy.value
    page = (made.folder / "recommendation.html").read_text()
    for one in made.recipes:
        assert str(one.recipe).replace("_", "_<wbr>").replace("+", "+<wbr>") in page
    assert page.count("<svg") == 1


def test_a_recipes_file_runs_to_what_was_measured(made: Recommendation) -> None:
    for one in made.recipes:
        recipe = load_study(made.folder / one.file)
        left = make_plan(recipe).missing(Store(made.folder / "store"))
        # Checks look at what the study's other attackers crafted too; everything else is there.
        assert {stage.kind for stage in left} <= {"check_defense"}


def test_the_same_command_goes_on_and_prints_it(
    made: Recommendation, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((made.folder / "recommendation.json").read_text())
    options = ("--trials", TRIALS, "--seed", 1, "--out", made.folder, "--workers", 1, "--json", "-")
    code, out, _ = call(capsys, "recommend", study, *options)
    assert code == 0
    again = json.loads(out)
    for part in ("tried", "recipes", "references", "beside", "recommended"):
        assert again[part] == before[part]
    assert not any("earlier search" in note for note in again["notes"])


# What MLflow asks of SQLAlchemy, and of pydantic, is theirs to mend.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_tracker_has_the_candidates_the_front_and_what_was_measured(
    made: Recommendation, study: Path, mlflow: Any
) -> None:
    heard: list[Event] = []
    again = mr.recommend(
        study, made.folder, time=None, trials=TRIALS, seed=1, progress=False, listeners=["mlflow", heard.append]
    )
    content = json.loads((made.folder / "recommendation.json").read_text())
    run = tracked(mlflow)
    assert (run.info.status, run.data.tags["mergerisk.recommended"]) == ("FINISHED", content["headline"])
    assert {name: run.data.params[f"searching.{name}"] for name in ("seed", "trials")} == {
        "seed": "1",
        "trials": str(TRIALS),
    }
    figures, client = run.data.metrics, mlflow.MlflowClient()
    accuracies = client.get_metric_history(run.info.run_id, "candidate/clean_accuracy")
    assert {one.step: one.value for one in accuracies} == {
        one["trial"]: one["accuracy"] for one in content["tried"]
    }
    assert figures["recipes_tried"] == len(content["tried"])

    def table(name: str) -> pd.DataFrame:
        return pd.DataFrame(**json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{name}.json")))

    # MLflow writes ten decimals
    places = {(round(one["accuracy"], 9), round(one["safety"], 9)) for one in content["tried"]}
    best = {one for one in places if not any(a >= one[0] and b >= one[1] for a, b in places - {one})}
    candidates = table("candidates")
    marked = candidates[candidates["best"]]
    assert set(marked[["clean_accuracy", "epsilon50"]].round(9).itertuples(index=False, name=None)) == best
    assert figures["best_trades"] == len(marked)
    verdict = table("recipes").set_index("name")
    assert verdict.index[verdict["recommended"] == 1].tolist() == [content["recommended"]]
    for one in (*again.recipes, *again.references):
        assert figures[f"clean_accuracy/{one.name.replace('+', '_')}"] == one.accuracy.value
        half = one.epsilon50.value  # JSON has no infinity
        assert verdict.loc[one.name, "epsilon50"] == pytest.approx(half if half < 1 else np.nan, nan_ok=True)
    assert figures["recommended/clean_accuracy/low"] == again.best.accuracy.low
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"recommendation.html", "recommendation.json", "recommendation.csv", "report.html"} <= files
    assert [type(event) for event in heard] == [
        SearchStarted, SearchRound, SearchEnded, RunStarted, RunFinished, SearchFinished,
    ]  # fmt: skip
    last = [(made.folder / name).read_text().splitlines()[-1] for name in ("run.log", "run/run.log")]
    assert content["headline"] in last[0]
    assert re.search(r" INFO finished, after .*; the report is .*report\.html$", last[1])


def test_too_little_time_is_said_and_what_was_made_is_kept(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did not suffice to try one recipe; everything finished is kept"):
        mr.recommend(study, tmp_path / "out", time=0.001, progress=False)
    assert re.search(
        r" ERROR ended, after .* did not suffice to try one recipe", (tmp_path / "out/run.log").read_text()
    )
    (tmp_path / "unlogged" / "run.log").mkdir(parents=True)
    with pytest.raises(UserError, match="suffice"):  # and no fault of the log's
        mr.recommend(study, tmp_path / "unlogged", time=0.001, progress=False)
    assert (tmp_path / "out" / "search.journal").is_file()


def test_fewer_recipes_are_measured_where_they_would_take_most_of_the_time(
    made: Recommendation, study: Path, tmp_path: Path
) -> None:
    asked = load_study(study)
    stage: Any = type("Stage", (), {"kind": "craft", "work": 1e3})()
    assert len(front(made.tried)) > 1
    for limit, count in ((1e9, 2), (1.0, 1), (None, 2)):
        clock = Clock(limit, 0.0, 1)
        clock(StageEnded(stage, Outcome("done", 0.5)))
        some, seconds = affordable(asked, {}, made.tried, Store(tmp_path), clock)
        assert len(some) == count
        assert seconds > 0.5


def test_a_merge_of_files_is_a_recipe_of_checkpoints_too(tiny_vit: Path, tmp_path: Path) -> None:
    save_tiny_models(tmp_path, tiny_vit)
    files = {"stripes": "public.safetensors", "blobs": "released.safetensors"}
    asked = load_study(
        write_tiny_study(tmp_path, tiny_vit, merging=["ties"], experts={"from": "files", "files": files})
    )
    found = checkpoints(asked, Recipe(Part.of("ties", {"density": 0.5, "scaling": 0.7}), (Part("median"),)))
    assert found is not None
    (tmp_path / "merge.yaml").write_text(found.to_yaml())
    merge_checkpoints(load_recipe(tmp_path / "merge.yaml"), tmp_path / "merged")
    bench_state = mr.load_encoder(str(tmp_path / "merged")).state()
    states = [
        mr.load_expert(mr.load_encoder(str(tiny_vit)), str(tmp_path / name)).state() for name in files.values()
    ]
    base = mr.load_encoder(str(tiny_vit)).state()
    wanted = mr.merging.merge_state_dicts("ties", base, states, density=0.5, scaling=0.7)
    assert all(bench_state[name].equal(wanted[name]) for name in wanted)
    for without in (Part("emr"), Part("adamerging"), Part("ties+surgery")):
        assert checkpoints(asked, Recipe(without)) is None


def space(search: dict[str, Any] | None = None, **changes: Any) -> Any:
    asked = parse_study(MINIMAL | {"tasks": ["digits", "letters"]} | changes)
    return space_of(to_search(asked), Search.model_validate(search or {}))


def test_by_default_all_methods_that_read_no_image_and_defenses_that_cost_no_attacker_more() -> None:
    found = space()
    assert {"ties", "emr", "slerp", "dare"} <= {*found.methods}
    assert not {"adamerging", "fisher", "we_moe", "regmean"} & {*found.methods}
    assert {*found.defenses} == {"jpeg", "bit_depth", "median"}
    assert found.bare
    assert "slerp" not in space(tasks=["digits", "letters", "textures"]).methods


def test_the_studys_merges_are_tried_first_and_then_each_method_as_it_is() -> None:
    asked = parse_study(
        MINIMAL | {"tasks": ["digits", "letters"], "merging": [{"method": "ties", "scaling": 0.5}, "adamerging"]}
    )
    begins = starts(asked, space())
    assert begins[0]["ties: scaling"] == 0.5
    assert [said["method"] for said in begins].count("ties") == 1
    assert len(begins) == len(space().methods)


def test_defenses_that_train_go_where_a_merge_has_one_encoder() -> None:
    found = space({"merging": ["ties", "emr"], "defenses": ["none", "pubdef", "jpeg"]})
    assert found.innermost == {"ties": ("pubdef", "jpeg"), "emr": ("jpeg",)}
    assert found.further == ("jpeg",)


def test_what_reads_the_images_it_is_chosen_by_is_told() -> None:
    found = space(
        {"merging": ["ties", "adamerging"], "defenses": [{"defense": "fare", "images": "calibration"}, "jpeg"]}
    )
    assert reading(found) == ["adamerging", "fare"]


@pytest.mark.parametrize(
    ("search", "changes", "message"),
    [
        ({"merging": ["slerp"]}, {"tasks": ["digits", "letters", "textures"]}, "search.merging: slerp: slerp interpolates"),
        ({"merging": [{"method": "ties", "density": {"low": 0.5, "high": 1.5}}]}, {}, "search.merging: ties: .*density"),
        ({"merging": [{"method": "ties", "dennsity": 0.5}]}, {}, "search.merging: ties: .*dennsity"),
        ({"defenses": [{"defense": "jpeg", "quality": [50, 500]}]}, {}, "search.defenses: jpeg: .*quality"),
        ({"merging": ["emr"], "defenses": ["pubdef"]}, {}, "search.defenses: pubdef: .*has an encoder for each task"),
        ({"defenses": ["jpeg"], "layers": 0}, {}, "search.defenses: nothing is left to choose from"),
        ({"attack": "apgd_ce"}, {}, "search.attack: no attack 'apgd_ce' in the study"),
        ({}, {"surrogates": ["merged"]}, "surrogates: recipes are chosen by attackers who hold no merge"),
        (
            {},
            {"experts": {"from": "files"}, "merging": [], "surrogates": ["pretrained"],
             "targets": [{"label": "ours", "http": {"digits": "http://localhost/"}, "queries": 1}]},
            "there is nothing to merge, so no recipe to recommend",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_said_first(
    search: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    asked = parse_study(MINIMAL | {"tasks": ["digits", "letters"], "search": search} | changes)
    with pytest.raises(UserError, match=message):
        space_of(to_search(asked), asked.search or Search())


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"merging": []}, "search.merging: must not be empty"),
        ({"merging": ["tiess"]}, "unknown merging method 'tiess'"),
        ({"defenses": ["jpg"]}, "unknown defense 'jpg'"),
        ({"defenses": [{"defense": "jpeg", "of": "ties"}]}, "leave it out"),
        ({"merging": [{"method": "ties", "density": {"low": 0.5, "high": 0.1}}]}, "low must be below high"),
        ({"merging": [{"method": "ties", "density": []}]}, "density: .*must not be empty"),
        ({"merging": ["ties", "ties"]}, "method 'ties' is given twice"),
        ({"trials": 3}, "search.trials: unknown field"),
    ],
)
def test_a_wrong_section_is_said_as_the_study_is_read(search: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_study(MINIMAL | {"search": search})


def test_a_run_reads_nothing_of_it() -> None:
    with_search = parse_study(MINIMAL | {"search": {"merging": ["emr"]}})
    assert with_search.to_yaml() == parse_study(MINIMAL).to_yaml()
    assert yaml.safe_load(with_search.to_yaml()).keys().isdisjoint({"search", "attacked"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time", "soon"], "--time must be a time such as 90s, 30m or 1.5h, got 'soon'"),
        (["--trials", "0"], "--trials must be 1 or more, got 0"),
        (["--workers", "0"], "--workers must be 1 or more, got 0"),
        (["--seed", "-1"], "--seed must be 0 or more"),
    ],
)
def test_wrong_options_are_said_before_anything_is_read(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "recommend", "no-such-study", *arguments)
    assert code == 2
    assert message in err
