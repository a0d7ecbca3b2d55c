"""Diagnostics in a study: those of direct calls on the same models, each model asked once, and gaps that are said."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml

import mergerisk as mr
from mergerisk.causes import Column, Gradient, ImageCause, Probe
from mergerisk.errors import UserError
from mergerisk.registry import Entry
from mergerisk.report import kept_explanations
from mergerisk.report.assembling import summarize
from mergerisk.report.explaining import explained
from mergerisk.report.export import explanations_to_dict
from mergerisk.report.kept_explanations import FILE, Found, explained_once
from mergerisk.report.view import view_of
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan, parse_study
from mergerisk.study.attacked import attacked
from mergerisk.study.finished import load_run as read_run
from mergerisk.study.kinds.ask import Ask
from mergerisk.study.kinds.compare import Compare
from mergerisk.study.workbench import Compute, Workbench
from mergerisk.validation import hyperparameters
from tests.cli.test_cli import call
from tests.tiny import MINIMAL, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.report.summary import Summary
    from mergerisk.study import FinishedRun, Plan

CAUSES: list[Any] = [
    "gradient_alignment",
    "gradient_size",
    {"cause": "smoothness", "products": 5},
    "diversity",
    "feature_shift",
    "linearity",
    "confidence",
    "cka",
    "weight_distance",
    "interference",
]
TARGETS = ["pretrained", "expert", "weight_averaging", "ties+surgery", "weight_averaging+bit_depth", "asked"]


def dark(images: Any) -> Any:
    """A black box."""
    return (images.mean(dim=(1, 2, 3)) < 0.5).long()


@pytest.fixture(scope="module")
def finished(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causes")
    study = write_tiny_study(
        folder,
        tiny_vit,
        merging=["weight_averaging", "ties+surgery"],
        surrogates=["expert", "pretrained"],
        attacks=["fgsm"],
        causes=CAUSES,
        defenses=[{"defense": "bit_depth", "of": "weight_averaging"}],
        targets=[{"label": "asked", "callable": {"stripes": "tests.study.test_causes:dark"}}],
    )
    mr.run(study, folder / "run", workers=1, progress=False)
    return folder / "run"


def planned(run: Path) -> Plan:
    return make_plan(load_study(run / "study.yaml"))


def of(run: Path, target: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of attacks on ``stripes`` from its expert."""
    return tuple(  # type: ignore[return-value]
        table[(table["task"] == "stripes") & (table["surrogate"] == "expert") & (table["target"] == target)]
        for table in (pd.read_parquet(run / f"{name}.parquet") for name in ("causes", "pair_causes"))
    )


@pytest.mark.parametrize("target", ["pretrained", "weight_averaging", "ties+surgery"])
@pytest.mark.parametrize("name", ["gradient_alignment", "smoothness", "diversity", "feature_shift", "cka"])
def test_values_are_those_of_a_direct_call(finished: Path, target: str, name: str) -> None:
    plan = planned(finished)
    bench = Workbench(Store(finished / "store"), Compute())
    run = next(run for run in plan.task_runs if run.task == "stripes")
    models = {
        label: evaluation.target.alone(label).classifier(bench)  # type: ignore[attr-defined]
        for evaluation in run.clean
        for label in evaluation.target.columns
        if label in {"expert", target}
    }
    task = bench.task(next(s.result for s in plan.stages.values() if s.key == run.task_key))  # type: ignore[attr-defined]
    indices = attacked(task, plan.study.images_per_task)
    spec = next(spec for spec in plan.study.causes if spec.name == name)
    direct = mr.causes.create(name, **spec.parameters)(
        models["expert"],
        models[target],
        task.test.images[indices],
        task.test.labels[indices],
        epsilon=plan.study.budgets.epsilon[1],
        seed=0,
        indices=indices,
    )
    images, pairs = of(finished, target)
    for column, values in direct.items():
        if direct.per == "pair":
            kept = pairs[pairs["measure"] == column]
            assert kept["part"].tolist() == list(direct.rows)
            found, reasons = kept["value"].to_numpy(), kept["missing"].tolist()
        elif column in images:
            assert images["image"].tolist() == indices.tolist()
            found, reasons = images[column].to_numpy(), images[f"{column}_missing"].tolist()
        else:  # of single blocks
            continue
        # Batches of other sizes sum in another order, in float32 gradients of size about 1.
        np.testing.assert_allclose(found, values.values, rtol=2e-3, atol=2e-4)
        assert reasons == values.reasons


def test_every_pair_has_its_rows_and_every_gap_its_reason(finished: Path) -> None:
    table = pd.read_parquet(finished / "causes.parquet")
    pairs = table.groupby(["task", "surrogate", "target"], observed=True).size()
    assert len(pairs) == 2 * 2 * 5 + 2  # tasks × surrogates × targets, and a black box that answers one task
    assert set(pairs) == {12}
    for column in (name for name in table if f"{name}_missing" in table):
        assert (table[column].isna() == (table[f"{column}_missing"] != "")).all(), column
    reasons = table.groupby("target", observed=True)["gradient_alignment_missing"].agg(set)
    assert reasons["asked"] == {"asked only answers with labels: it has no features and no gradients to read"}
    # Rounding has no gradient.
    assert reasons["weight_averaging+bit_depth"] == {"the target's gradient is zero"}
    shift = table[table["target"] == "weight_averaging+bit_depth"]["feature_shift_missing"]
    assert shift.str.contains("features cannot be told").all()
    linear = table[table["target"] == "ties+surgery"]["linearity_missing"]
    assert set(linear) == {"ties+surgery is no linear mix of its ingredients"}
    assert table[table["target"] == "weight_averaging"]["linearity"].notna().all()


def test_every_model_is_asked_every_question_once(finished: Path) -> None:
    """Gradients of two surrogates and four targets that can be looked into, two of which are both."""
    asked = [stage for stage in planned(finished).stages.values() if isinstance(stage, Ask)]
    gradients = Counter(
        (stage.model.task, stage.model.labels) for stage in asked if stage.question.startswith("Gradient(")
    )
    assert set(gradients.values()) == {1}
    assert len(gradients) == 2 * 5  # tasks × models: those that attack are among those that are attacked
    compared = [stage for stage in planned(finished).stages.values() if isinstance(stage, Compare)]
    assert len(compared) == (2 * 2 * 5 + 2) * 7  # pairs × diagnostics that compare answers


def test_a_further_diagnostic_and_a_further_merge_ask_only_what_is_new(finished: Path) -> None:
    study = yaml.safe_load((finished / "study.yaml").read_text())
    before = set(planned(finished).stages)
    more = make_plan(parse_study(study | {"causes": [*study["causes"], "boundary_distance"]}))
    new = [stage for key, stage in more.stages.items() if key not in before]
    assert new
    assert not any(
        stage.question.startswith(("Gradient(", "Features(")) for stage in new if isinstance(stage, Ask)
    )
    assert {stage.diagnostic.name for stage in new if isinstance(stage, Compare)} == {"boundary_distance"}
    more = make_plan(parse_study(study | {"merging": [*study["merging"], "task_arithmetic"]}))
    new = [stage for key, stage in more.stages.items() if key not in before]
    assert {stage.model.labels for stage in new if isinstance(stage, Ask)} == {"task_arithmetic"}


@hyperparameters
class _Own(Probe):
    reads = frozenset({"labels"})

    def measure(self, model: Any, batch: Any) -> Any:
        raise NotImplementedError


@hyperparameters
class Installed(ImageCause):
    """One that a package adds, with a question of its own beside one of ours."""

    name = "installed"
    needs = frozenset({"surrogate", "images", "labels"})
    columns = (Column("installed", "", 0.0, 1.0, ""),)

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (Gradient(), _Own())

    def of_target(self) -> tuple[Probe, ...]:
        return (Gradient(),)

    def compare(self, seen: Any) -> Any:
        raise NotImplementedError


def test_an_installed_diagnostics_version_is_in_the_keys_of_what_its_code_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = Entry("installed", f"{__name__}:Installed", "", distribution="other 1.0")
    monkeypatch.setitem(vars(mr.causes.CAUSES), "_installed", {"installed": entry})
    ours = make_plan(parse_study(MINIMAL | {"causes": ["gradient_alignment"]})).stages
    both = make_plan(parse_study(MINIMAL | {"causes": ["gradient_alignment", "installed"]})).stages
    assert ours.keys() <= both.keys()
    new = [stage for key, stage in both.items() if key not in ours]
    assert {(stage.kind, stage.plugins) for stage in new} == {("ask", ("other 1.0",)), ("compare", ("other 1.0",))}
    assert {stage.question for stage in new if isinstance(stage, Ask)} == {"_Own()"}


def test_what_explains_who_is_fooled_says_what_it_cannot(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = call(capsys, "causes", finished, "--json", tmp_path / "found.json")
    assert code == 0
    found = json.loads((tmp_path / "found.json").read_text())
    measures = {one["measure"]: one for one in found["worst"]["measures"]}
    assert {"gradient_alignment", "representation_bias", "cka", "weight_distance", "diversity"} - {*measures} == {
        "representation_bias"
    }, "of what the study asked for"
    for name in measures:
        assert name in out, "everything is in the table"
    assert found["worst"]["methods"] == [*load_study(finished / "study.yaml").ranked]
    assert measures["gradient_alignment"]["missing"]["the target's gradient is zero"] > 0
    assert measures["weight_distance"]["images"]["why"] in {"by_method", "few_images"}
    assert "Which method is safer cannot be told" in out
    assert "Not in this study: an expert of another task" in out
    again = mr.explain(finished)
    assert [one.measure for one in again.worst.measures] == [*measures]


def test_the_worst_attacker_is_the_reports(finished: Path) -> None:
    """Where the budget that a report speaks of, at which half are fooled, has another one than the mean of all."""
    run = read_run(finished)
    outcomes = run.outcomes[run.outcomes["target"].isin(run.study.ranked)]
    place = outcomes["image"] % 2
    share = outcomes["epsilon"].map(dict(zip(run.study.budgets.epsilon, (0, 1, 2), strict=True)))
    expert = outcomes["surrogate"] == "expert"
    # Of even and odd images the expert fools half at the middle budget and none else; the base all at the largest.
    hit = np.where(expert, (share == 1) & (place == 0), share == 2)
    right = outcomes["label"]
    said = {"surrogate_clean": right, "target_clean": right, "target_adversarial": np.where(hit, right + 1, right)}
    causes = next(kept for kept in run.further if kept.declared.name == "causes")
    few = ["task", "surrogate", "target", "seed", "image", "gradient_size_l1", "gradient_size_l1_missing"]
    further = (causes._replace(rows=causes.rows[few]),)
    run = replace(run, outcomes=outcomes.assign(**said).reset_index(drop=True), further=further)
    summary = summarize(run)
    found = explained(run, summary, refits=0)
    assert found.worst.chosen == dict.fromkeys(run.study.ranked, "expert")
    assert {name: one.surrogate for name, one in view_of(summary).worst.items()} == found.worst.chosen


def test_what_was_explained_is_kept_and_never_stale(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("store"))
    run = read_run(folder)
    summary = summarize(run)
    made: list[str] = []

    def nothing(_run: FinishedRun, _summary: Summary, purpose: str = "", **_rest: object) -> Found:
        made.append(purpose)
        return Found(None, None)

    monkeypatch.setattr(kept_explanations, "explained_now", nothing)
    kept = explained_once(run, summary, folder)
    assert kept.explanations is not None
    written = json.loads((folder / "summary.json").read_text())
    assert explanations_to_dict(kept.explanations) == written["explanations"], "read back as it was"
    assert not made
    good = (folder / FILE).read_bytes()
    entry = json.loads(good)["report"]
    damaged = [good[:-9], b"[]", json.dumps({"report": {**entry, "found": {"explanations": {}}}}).encode()]
    for content in damaged:
        (folder / FILE).write_bytes(content)
        assert explained_once(run, summary, folder, write=False) == Found(None, None)
    assert made == ["report"] * 3
    assert (folder / FILE).read_bytes() == damaged[-1], "nothing is written unless asked for"
    (folder / FILE).write_bytes(good)
    for purpose, seed in (("report", 1), ("causes", 1)):
        assert explained_once(run, summary, folder, purpose, seed=seed, write=False) == Found(None, None)  # type: ignore[arg-type]
    table = pd.read_parquet(folder / "pair_causes.parquet")
    table.assign(value=table["value"] + 1).to_parquet(folder / "pair_causes.parquet")
    assert explained_once(run, summary, folder) == Found(None, None), "of other figures"
    assert explained_once(run, summary, folder) == Found(None, None)
    assert made == ["report"] * 4 + ["causes", "report"], "what was made is kept"


def test_a_run_without_diagnostics_says_what_to_add(
    tmp_path: Path, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_tiny_study(tmp_path, tiny_vit, merging=["weight_averaging"], attacks=["fgsm"])
    mr.run(study, tmp_path / "run", workers=1, progress=False)
    code, out, err = call(capsys, "causes", tmp_path / "run")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "asked for no diagnostics; add causes: [gradient_alignment" in err
    code, _, err = call(capsys, "causes", tmp_path / "nothing")
    assert (code, err.count("\n")) == (2, 1)


def test_reports_judge_the_claims_on_causes_that_the_study_can_tell(finished: Path) -> None:
    claims = {one["name"]: one for one in json.loads((finished / "summary.json").read_text())["claims"]}
    assert "hint_gradient_alignment" in claims
    assert not claims.keys() & {"hint_representation_bias", "poster_boundaries", "poster_architecture"}
    assert "ASR along gradient alignment of targets" in claims["hint_gradient_alignment"]["compared"]
    judged = {one.name: one for one in mr.claims(finished)}
    assert judged.keys() == claims.keys()
    assert judged["hint_gradient_alignment"].p_value == claims["hint_gradient_alignment"]["detail"]["p_value"]


def test_the_most_and_the_least_aligned_image_are_drawn(finished: Path) -> None:
    run = read_run(finished)
    images = run.outcomes[(run.outcomes["surrogate"] == "expert") & (run.outcomes["target"] == "weight_averaging")]
    right = (images["surrogate_clean"] == images["label"]) & (images["target_clean"] == images["label"])
    rows = pd.read_parquet(finished / "causes.parquet")
    rows = rows[(rows["surrogate"] == "expert") & (rows["target"] == "weight_averaging")]
    keys = ["task", "image"]
    known = rows.astype({"task": str}).merge(images[right][keys].astype({"task": str}).drop_duplicates(), on=keys)
    known = known["gradient_alignment"].dropna()
    assert [one.facts["alignment"] for one in run.gradients] == [known.max(), known.min()]
    for one in run.gradients:
        s, t = one.surrogate.ravel(), one.target.ravel()
        # Entries have 11 bits, whose rounding is as often up as down over 768 of them.
        assert s @ t / np.linalg.norm(s) / np.linalg.norm(t) == pytest.approx(one.facts["alignment"], abs=2e-4)
        own = images[(images["task"] == one.facts["task"]) & (images["image"] == one.facts["image"])]
        hit = own.loc[own["target_adversarial"] != own["label"], "epsilon"]
        assert one.facts["fooled_at"] == (hit.min() if len(hit) else None)
        assert one.clean.shape == one.surrogate.shape == (16, 16, 3)
    page = (finished / "report.html").read_text()
    assert page.count('class="gradient-panels"') == 2
    assert "The most aligned image: cosine" in page


def test_reports_show_the_tables(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "One row per attacked image, surrogate and target" in page
    assert "One row per surrogate, target, measure and part of the models" in page


@pytest.mark.parametrize(
    ("causes", "message"),
    [
        (["gradient_aligment"], r"causes\[0\]: unknown .*'gradient_aligment' \(did you mean 'gradient_alignment'"),
        ([{"cause": "smoothness", "products": 0}], r"causes\[0\]: .*products"),
        (["cka", "cka"], "diagnostic 'cka' is given twice"),
        ([{"cause": "cka", "label": "other"}], "a diagnostic has its own name"),
    ],
)
def test_what_is_wrong_is_said_first(causes: list[Any], message: str) -> None:
    content = MINIMAL | {"causes": causes}
    with pytest.raises(UserError, match=message):
        parse_study(content)


def test_all_stands_for_every_diagnostic() -> None:
    content = MINIMAL | {"causes": "all"}
    assert [spec.name for spec in parse_study(content).causes] == [*mr.causes.CAUSES]
