"""Whether the word defends may be used, found within a study: of a planted quantiser and of an honest defense."""

from __future__ import annotations

import html
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

import mergerisk as mr
from mergerisk.cli.main import cli
from mergerisk.cli.study_words import describe_result
from mergerisk.defenses import CHECKS, Defense, InputDefense
from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.errors import UserError
from mergerisk.report import summary_schema
from mergerisk.report.price_words import verdict
from mergerisk.study import load_study, parse_study
from mergerisk.study.shipped import shipped_studies
from mergerisk.validation import hyperparameters
from tests.tiny import MINIMAL, write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch
    from torch import nn


PLANTED, HONEST = "weight_averaging+planted", "weight_averaging+honest"


@hyperparameters
class Planted(Defense):
    """Three levels, and nothing for attackers who know: every gradient is zero."""

    def defend(self, classifier: nn.Module) -> nn.Module:
        return mr.defenses.bpda(classifier, lambda images: (images * 2).round() / 2, lambda images: images * 0)


@hyperparameters
class Honest(InputDefense):
    """Half the contrast, which hides nothing."""

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        return 0.25 + images / 2

    def followed(self, images: torch.Tensor) -> torch.Tensor:
        return self.transform(images)


@pytest.fixture(scope="module")
def finished(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("checked")
    DEFENSES.register("planted", summary="hides its gradient")(Planted)
    DEFENSES.register("honest", summary="hides nothing")(Honest)
    names = ["planted", "honest"]
    study = write_tiny_study(
        folder,
        tiny_vit,
        merging=["weight_averaging"],
        attacks=["fgsm"],
        surrogates=["expert", "aware", "white_box"],
        budgets={"epsilon": ["8/255", "24/255"]},
        images_per_task=30,
        experts={"fine_tune": {"epochs": 8, "learning_rate": 0.003, "batch_size": 16}},
        checks={"queries": 50},
        defenses=[{"defense": name, "of": "weight_averaging"} for name in names],
    )
    mr.run(study, folder / "run", workers=1, progress=False)
    yield folder / "run"
    for name in names:
        DEFENSES.unregister(name)


def test_every_check_has_a_line_with_its_figure(finished: Path) -> None:
    checks = pd.read_parquet(finished / "defenses.parquet")
    for _, rows in checks.groupby("target"):
        assert tuple(rows["check"]) == CHECKS
    assert set(checks["target"]) == {PLANTED, HONEST}
    assert checks[["passed", "figure", "limit"]].notna().all(axis=None)
    clean = pd.read_parquet(finished / "clean.parquet")
    right = (clean["prediction"] == clean["label"]).groupby(clean["model"]).sum()
    assert (checks["images"] == checks["target"].map(right)).all()


def test_a_planted_quantiser_is_refused_and_an_honest_defense_passes(finished: Path) -> None:
    checks = pd.read_parquet(finished / "defenses.parquet")
    failed = checks[checks["passed"] != 1].groupby("target")["check"].agg(list)
    assert [*failed.index] == [PLANTED]
    assert {"gradients_are_there", "loss_has_settled", "all_fall_in_the_end"} <= {*failed[PLANTED]}


def test_the_word_is_said_of_the_honest_one_alone(finished: Path) -> None:
    found = mr.prices(finished)
    planted, honest = found.offers
    assert (planted.priced.target, planted.defends, honest.not_shown) == (PLANTED, False, ())
    said = CliRunner().invoke(cli, ["prices", str(finished), "--json", str(finished / "prices.json")])
    page = html.unescape((finished / "report.html").read_text()).replace("<wbr>", "")
    summary = json.loads((finished / "summary.json").read_text())
    for text in (said.output, page, describe_result(mr.load_run(finished))):
        assert re.search(f"{re.escape(HONEST)}.*{verdict(honest)}", text)
        assert not re.search(f"{re.escape(PLANTED)}[^\n]*defends", text)
        assert "not shown to defend: all_fall_in_the_end" in text
    assert f"{HONEST}: {verdict(honest)}" in page
    assert f"{PLANTED}: not shown to defend" in page
    Draft202012Validator(summary_schema()).validate(summary)
    written = json.loads((finished / "prices.json").read_text())
    assert written["offers"] == summary["prices"]["offers"]
    (tex,) = export(finished, finished.parent / "export", "tex", "prices.tex")
    assert "not shown to defend" in tex.read_text()


def export(run: Path, out: Path, formats: Any, name: str) -> list[Path]:
    return [file for file in mr.export_report(run, out, (formats,)) if file.name == name]


def test_attackers_are_told_by_what_they_know(finished: Path) -> None:
    """The white box of the planted defense gets nowhere, and whoever knows it not further than who does not."""
    planted, honest = mr.prices(finished).offers
    assert [(one.surrogate, one.kind) for one in planted.priced.attackers] == [
        ("expert", "unaware"), (f"aware/{PLANTED}", "aware"), (PLANTED, "white_box"),
    ]  # fmt: skip
    results = pd.read_parquet(finished / "results.parquet")
    chosen = results[(results["target"] == HONEST) & (results["surrogate"] == f"aware/{HONEST}")]
    aware = honest.priced.attackers[1]
    at = chosen[chosen["epsilon"] == mr.prices(finished).epsilon]
    assert aware.images <= at["images_both_correct"].sum()
    assert 0 <= aware.asr.value <= 1


def test_a_run_without_defenses_has_no_prices(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("store"))
    content = yaml.safe_load((tmp_path / "run" / "study.yaml").read_text())
    plain = content | {"defenses": [], "surrogates": ["expert"]}
    (tmp_path / "run" / "study.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(UserError, match="nothing in the study is defended; add defenses"):
        mr.prices(tmp_path / "run")


def test_costs_are_of_answers_and_of_what_a_defense_is_made_with(finished: Path) -> None:
    costs = pd.read_parquet(finished / "defense_costs.parquet").set_index("target")
    assert (costs["undefended"] == "weight_averaging").all()
    assert (costs["passes"] == 1).all()
    assert (costs["bytes"] == costs["undefended_bytes"]).all()
    assert (costs[["training", "gradient"]] == 0).all(axis=None)  # nothing is trained at the input
    assert (costs[["seconds", "undefended_seconds"]] > 0).all(axis=None)


@pytest.mark.parametrize("name", ["starter-defenses", "real-defenses"])
def test_a_shipped_study_has_attackers_who_know_and_who_do_not(name: str) -> None:
    study = load_study(shipped_studies()[name], resolve=False, files=False)
    kinds = {reference.kind for spec in study.surrogates for reference in spec.references}
    assert {"expert", "pretrained", "own_merge", "aware", "merged"} <= kinds
    assert {spec.knows for spec in study.surrogates} - {None} == {*study.defended}
    assert {spec.name for spec in study.defenses} >= {"jpeg", "median", "pubdef", "fare", "secrecy"}


@pytest.mark.parametrize(
    ("checks", "message"),
    [({"steps": 9}, "checks.steps"), ({"restarts": 1}, "checks.restarts"), ({"images": 0}, "checks.images")],
)
def test_checks_that_tell_nothing_are_refused(checks: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_study(MINIMAL | {"checks": checks, "defenses": [{"defense": "jpeg", "of": "ties"}]})
