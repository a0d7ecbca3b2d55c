"""Claims in the report of a run: which surrogates they are judged on, what small runs get, what is exported."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from mergerisk.report import summary_schema, summary_to_json
from mergerisk.report.claim_words import verdict_to_dict
from mergerisk.report.exports import write_exports
from mergerisk.report.page import render_html
from mergerisk.report.run_summary import claim_of, judged_summary, tables_of
from mergerisk.report.view import view_of
from mergerisk.statistics import BUILT_IN, judge_claims
from mergerisk.statistics.facts import fact
from mergerisk.study import load_study
from mergerisk.study.finished import FinishedRun
from tests.statistics.made_up import outcomes

from .test_report_page import read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHANCES = {"weight_averaging": 0.6, "ties": 0.5, "weight_averaging+surgery": 0.4, "ties+surgery": 0.3}


def finished(chances: dict[str, float], *, merges: Sequence[str] | None = None, **made: Any) -> FinishedRun:
    """A run with made-up outcomes; ``merges`` says which of its targets are merges, all by default."""
    return of(outcomes(chances, **made), list(chances) if merges is None else list(merges))


def of(rows: pd.DataFrame, merges: Sequence[str]) -> FinishedRun:
    study = load_study("starter", resolve=False)
    methods = tuple(study.merging[0].model_copy(update={"label": label}) for label in merges)
    targets = [str(name) for name in rows["target"].unique()]
    images = range(40)
    clean = pd.MultiIndex.from_product(
        [[str(name) for name in rows["task"].unique()], targets, images], names=["task", "model", "image"]
    ).to_frame(index=False)
    places = clean["model"].map(targets.index).to_numpy()
    right = clean["image"].to_numpy() % 10 >= places % 7
    clean = clean.assign(seed=0, label=1, prediction=np.where(right, 1, 0))
    record = {
        "versions": {}, "device": "cpu", "workers": 1, "git_revision": None, "started": "", "seconds": 1.0,
        "kinds": {}, "counts": {}, "single_step_attacks": [], "stages": [],
    }  # fmt: skip
    changed = study.model_copy(update={"merging": methods})
    return FinishedRun(changed, rows, rows.head(0), clean, [], record)


def words(page: str) -> str:
    """The page's text, on one line."""
    return " ".join(" ".join(read(page).text).split())


@pytest.fixture(scope="module")
def run() -> FinishedRun:
    return finished(CHANCES, images=60, shared=0.5)


def test_every_report_carries_claims_and_ranks(run: FinishedRun, tmp_path: Path) -> None:
    summary = judged_summary(run)
    assert [claim["name"] for claim in summary.claims] == [claim.name for claim in BUILT_IN]
    verdicts = {verdict.name: verdict for verdict in judge_claims(tables_of(run))}
    for claim in summary.claims:
        assert claim["verdict"] == verdicts[claim["name"]].answer
        assert claim["detail"] == verdict_to_dict(verdicts[claim["name"]])
    document = json.loads(summary_to_json(summary))
    assert list(Draft202012Validator(summary_schema()).iter_errors(document)) == []
    page = words(render_html(summary))
    for claim in BUILT_IN:
        assert claim.sentence in page
    assert "the surrogates of the published study" in page
    assert "attacks made on the worst of expert, pretrained" in page
    assert "under the worst attacker of every setting (" in page
    assert "both pooled" in page
    assert "tested over 6 tasks" in page
    write_exports(summary, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Claims" in text
    assert (tmp_path / "tables" / "claims.tex").is_file()
    assert (tmp_path / "figures" / "standings.svg").is_file()
    assert pd.read_csv(tmp_path / "data" / "claims.csv")["name"].tolist() == [claim.name for claim in BUILT_IN]
    assert (tmp_path / "data" / "claims.parquet").is_file()


def test_methods_stand_by_risk_and_the_page_gives_one_answer(run: FinishedRun) -> None:
    summary = judged_summary(run)
    assert [round(255 * found.epsilon) for found in summary.standings] == [2, 4, 8]
    for found in summary.standings:
        assert found.leader.name == "ties+surgery"
        assert found.methods[-1].name == "weight_averaging"
        assert found.attackers == ("expert", "pretrained")
        assert (found.tasks, found.images, len(found.pairs)) == (6, 360, 6)
    view = view_of(summary)
    assert view.standing is not None
    card = next(answer for answer in view.answers() if answer.question.startswith("Which is the safest"))
    assert view.standing.leader.name == "ties+surgery"
    assert view.beside is not None
    assert {method.name for method in view.beside.methods} == {*CHANCES, "expert", "pretrained"}
    # every figure of a method under the worst attacker is one figure
    shown = {method.name: (method.value, method.low, method.high) for method in view.standing.methods}
    for name, worst in view.worst.items():
        if name in shown:
            assert shown[name] == (worst.asr.value, worst.asr.low, worst.asr.high)
            assert view.risks[worst.surrogate, view.epsilon, "asr"][name] == worst.asr
    at_budget = next(found for found in summary.standings if found.epsilon == view.epsilon)
    # no cell lacks a value, so what is compared is what is shown
    assert {m.name: m.value for m in at_budget.methods} == pytest.approx({n: v[0] for n, v in shown.items()})
    page = words(render_html(summary))
    assert card.headline in page
    for name in CHANCES:
        assert f"{100 * view.worst[name].asr.value:.1f}%" in page
    row = next(row for row in view.overview if row.epsilon == view.epsilon)
    assert (row.pairs_apart, row.pairs) == (view.standing.pairs_apart, 6)


def test_other_surrogates_and_white_boxes_leave_claims_as_they_are(run: FinishedRun) -> None:
    """As many surrogates as a study can have; merges among them, and tasks without an expert."""
    names = ("other_expert", "expert/digits", "outsider", "other_architecture", "both", "ties", "ties+surgery")
    parts = [run.outcomes.astype({"surrogate": str})]
    for place, name in enumerate(names):
        more = outcomes(CHANCES, surrogates=("expert",), images=60, seed=9 + place, white_box=0.3)
        more = more.astype({"surrogate": str}).assign(surrogate=name)
        own = (more["target"] == name).to_numpy()  # white box
        more.loc[own, "target_adversarial"] = more.loc[own, "surrogate_adversarial"]
        parts.append(more)
    wide = of(pd.concat(parts, ignore_index=True), list(CHANCES))
    few, many = judge_claims(tables_of(run)), judge_claims(tables_of(wide))
    for one, other in zip(few, many, strict=True):
        assert verdict_to_dict(one) == verdict_to_dict(other)
    summary = judged_summary(wide)
    render_html(summary)
    assert len({str(name) for name in summary.results["surrogate"]}) == 9


def test_tasks_without_an_expert_are_left_out_of_pairs_alone(run: FinishedRun) -> None:
    rows = run.outcomes
    bare = rows["task"].isin(["digits", "maps"]) & ((rows["target"] == "expert") | (rows["surrogate"] == "expert"))
    found = {
        verdict.name: verdict
        for verdict in judge_claims(tables_of(of(rows[~bare].reset_index(drop=True), list(CHANCES))))
    }
    assert found["poster_surrogate"].tasks == 4
    assert found["no_robustness"].tasks == 6
    render_html(judged_summary(of(rows[~bare].reset_index(drop=True), list(CHANCES))))


SMALL: dict[str, dict[str, Any]] = {
    "one method": {"chances": {"ties": 0.5}},
    "one task": {"chances": CHANCES, "tasks": ("digits",)},
    "one of everything": {
        "chances": {"ties": 0.5}, "tasks": ("digits",), "attacks": ("fgsm",), "surrogates": ("expert",),
        "epsilons": (4 / 255,), "images": 1,
    },
    "no Surgery": {"chances": {"weight_averaging": 0.6, "ties": 0.5}},
    "no merging": {"chances": {"service": 0.5}, "merges": ()},
    "nothing but ingredients": {"chances": {}},
    "no expert as surrogate": {"chances": CHANCES, "surrogates": ("pretrained",)},
    "a surrogate never fooled": {"chances": CHANCES, "white_box": 0.0},
    "nobody right when clean": {"chances": CHANCES, "accuracy": dict.fromkeys(("expert", "pretrained"), 0.0)},
}  # fmt: skip


@pytest.mark.parametrize("name", list(SMALL))
def test_small_runs_are_told_what_is_not_tested(name: str) -> None:
    small = SMALL[name]
    run = finished(small["chances"], **{key: value for key, value in small.items() if key != "chances"})
    summary = judged_summary(run)
    found = {claim["name"]: claim for claim in summary.claims}
    assert len(found) == len(BUILT_IN)
    for claim in found.values():
        assert claim["verdict"] in {"supported", "contradicted", "inconclusive", "not tested"}
        assert (claim["verdict"] == "not tested") == claim["reason"].startswith("Not tested:")
    render_html(summary)
    json.loads(summary_to_json(summary))
    if name in {"no merging", "nothing but ingredients"}:
        assert {claim["verdict"] for claim in found.values()} == {"not tested"}
        assert summary.standings == ()
    if name == "no Surgery":
        assert found["poster_surgery"]["verdict"] == found["bias_mitigation"]["verdict"] == "not tested"
        assert found["no_robustness"]["verdict"] != "not tested"
    if name == "one method":
        assert found["averaging_worst"]["verdict"] == "not tested"


def test_a_claim_says_its_effect_and_interval(run: FinishedRun) -> None:
    verdict = next(verdict for verdict in judge_claims(tables_of(run)) if verdict.name == "no_robustness")
    claim = claim_of(verdict)
    targets = run.outcomes["target"].isin(list(CHANCES))
    fooled = (run.outcomes["target_adversarial"] != 0)[targets].mean()
    own = (run.outcomes["surrogate_adversarial"] != 0)[targets].mean()
    pooled = next(part for part in claim["attackers"] if part["attacker"] == "pooled")
    assert pooled["effect"] == f"{fooled / own:.3f}"
    assert [part["attacker"] for part in claim["attackers"]] == ["expert", "pretrained", "pooled"]
    assert claim["attacker"].startswith("worst attacker (")
    assert claim["effect"] == f"ratio of mean ASRs {verdict.effects[0].value:.3f}"
    low, high = verdict.intervals[0].low, verdict.intervals[0].high
    assert claim["interval"] == f"{low:.3f} to {high:.3f}, over images"
    assert claim["compared"].startswith("relative ASR of every setting against 1")
    assert claim["by_other_ASR"].startswith("relative ASR over all images: ")
    assert low < verdict.effects[0].value < high
    untested = replace(verdict, test="", missing=fact("no_setting"), effects=())
    assert claim_of(untested)["verdict"] == "not tested"
    assert "effect" not in claim_of(untested)
