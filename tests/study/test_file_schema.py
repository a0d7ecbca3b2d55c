"""The schema that editors read takes what mergerisk takes, and refuses what no file may say."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml

from mergerisk.audit import Audit
from mergerisk.cli.main import cli
from mergerisk.study import Study
from mergerisk.study.file_schema import written_schema
from mergerisk.study.shipped import shipped_studies
from tests.cli.test_cli import call
from tests.test_pages import BLOCKS, PART, ROOT

STUDY: dict[str, Any] = {
    "backbone": "starter-vit",
    "tasks": ["digits", "letters"],
    "merging": ["weight_averaging"],
    "attacks": ["fgsm"],
    "budgets": {"epsilon": ["2/255"]},
}


@cache
def checked(kind: type[Any]) -> jsonschema.Draft202012Validator:
    schema = json.loads(written_schema(kind, "checked"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_it_takes_every_study_and_audit_that_is_shipped_or_on_a_page() -> None:
    written = [yaml.safe_load(path.read_text()) for path in shipped_studies().values()]
    pages = [(block, yaml.safe_load(block.text)) for block in BLOCKS if block.kind == "yaml"]
    audits = [yaml.safe_load((ROOT / "examples" / "audit" / "audit.yaml").read_text())]
    audits += [content for _, content in pages if "merged" in content or "candidates" in content]
    # A part lacks what every study needs; the rest of a study stands on other pages.
    written += [STUDY | content for block, content in pages if block.text.startswith(PART)]
    written += [content for _, content in pages if {"backbone", "attacks"} <= set(content)]
    assert len(written) > 25
    assert len(audits) > 2
    for kind, files in ((Study, written), (Audit, audits)):
        for content in files:
            errors = [f"{error.json_path}: {error.message}" for error in checked(kind).iter_errors(content)]
            assert not errors, (content, errors)


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"budget": {"epsilon": ["2/255"]}}, "$"),
        ({"budgets": {"epsilon": ["two"]}}, "$.budgets.epsilon[0]"),
        ({"merging": [{"method": "ties", "desnity": 0.1}]}, "$.merging[0]"),
        ({"merging": [{"method": "ties+surgery", "density": 0.1, "path": 2}]}, "$.merging[0]"),
        ({"attacks": [{"attack": "mi_fgsm", "decay": "much"}]}, "$.attacks[0]"),
        ({"defenses": [{"defense": "jpeg", "quality": 75}]}, "$.defenses[0]"),
        ({"surrogates": ["experts"]}, "$.surrogates[0]"),
        ({"heads": {"from": "nowhere"}}, "$.heads.from"),
        ({"experts": {"fine_tune": {"epochs": 0}}}, "$.experts.fine_tune.epochs"),
        ({"images_per_task": 0}, "$.images_per_task"),
    ],
)
def test_it_refuses_what_no_study_may_say(change: dict[str, Any], at: str) -> None:
    assert not list(checked(Study).iter_errors(STUDY))
    assert [error.json_path for error in checked(Study).iter_errors(STUDY | change)] == [at]


def test_it_says_what_fields_and_hyper_parameters_are() -> None:
    schema = checked(Study).schema
    assert schema["properties"]["images_per_task"]["description"].startswith("attacked images per task")
    method = schema["$defs"]["MethodSpec"]["anyOf"][1]
    ties = next(
        one["then"] for one in method["allOf"] if one["then"]["description"].startswith("trim task vectors")
    )
    assert ties["properties"]["density"]["description"].startswith("share of entries kept")
    assert "ties+surgery" in method["properties"]["method"]["examples"]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "schema" in cli.commands
    for what in ("audit", "summary"):
        code, out, _ = call(capsys, "schema", what)
        assert code == 0
        jsonschema.Draft202012Validator.check_schema(json.loads(out))
    assert json.loads(call(capsys, "schema", "audit")[1])["properties"]["fail_if"]
