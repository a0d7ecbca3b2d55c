"""The worked audit of ``examples/audit`` and its page in the docs, at reduced size."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mergerisk.audit import Audit, audit, load_audit
from mergerisk.audit.gates import AT_A_BUDGET, OF_A_CURVE, OF_A_MODEL, parse_gate
from mergerisk.audit.schema import Scenario
from tests.cli.test_cli import call

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "audit"
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")

SMALLER = {
    "candidates": ["ties"],
    "outsider": {"task": "digits", "fine_tune": {"epochs": 1}},
    "attacks": ["fgsm"],
    "budgets": {"epsilon": ["4/255", "8/255"]},
    "images_per_task": 20,
    "fail_if": ["asr > 70% at 4/255", "epsilon50 < 0.1/255", "clean_accuracy < 1%"],
}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_material", EXAMPLE / "make_material.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder after its script, with a smaller audit."""
    folder = tmp_path_factory.mktemp("example")
    for name in ("recipe.yaml", "audit.yaml"):
        shutil.copy(EXAMPLE / name, folder)
    script().make_material(folder / "material", epochs=1, images=60)
    content: dict[str, Any] = yaml.safe_load((folder / "audit.yaml").read_text())
    assert set(SMALLER) <= set(content), "the audit has no such field any more"
    (folder / "smaller.yaml").write_text(yaml.safe_dump(content | SMALLER, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def out(material: Path) -> Path:
    from mergerisk.recipe import load_recipe, merge_checkpoints

    merge_checkpoints(load_recipe(material / "recipe.yaml"), material / "merged")
    load_audit(material / "audit.yaml").to_study()
    audit(material / "smaller.yaml", material / "out")
    return material / "out"


@pytest.mark.slow
def test_the_example_runs_from_material_to_verdict(
    capsys: pytest.CaptureFixture[str], material: Path, out: Path
) -> None:
    code, said, err = call(capsys, "audit", material / "smaller.yaml", "--out", out)
    assert code in {0, 3}, err
    found = json.loads((out / "audit.json").read_text())
    assert found["failed"] == (code == 3)
    assert found["surrogates"] == [
        "expert/traffic_signs", "street_numbers", "textures", "pretrained", "outsider", "merged", "ties",
    ]  # fmt: skip
    photos = list((material / "material" / "photos").glob("*/*.png"))
    readings = found["models"][0]["readings"]
    assert readings[0]["images"] == 20
    assert len(photos) == 60
    accuracy = found["models"][0]["clean_accuracy"]["value"]
    assert accuracy > 1.5 / 14, "no better than guessing: heads and labels are mixed up"
    assert "gate passed on merged: clean accuracy must be at least 1%" in said


@pytest.mark.slow
def test_the_snippet_for_python_runs(material: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(material)
    shutil.copytree(out / "store", material / "audits" / "from-python" / "store")
    shutil.copy(material / "smaller.yaml", material / "audit.yaml")
    names: dict[str, Any] = {}
    exec(compile(snippet, "docs/audit.md", "exec"), names)
    assert names["result"].verdict.subject.name == "merged"
    assert names["worst"].white_box is False


def test_the_workflow_is_yaml_that_stops_a_release() -> None:
    content = yaml.safe_load((EXAMPLE / "github-actions.yml").read_text())
    audit, release = content["jobs"]["audit"], content["jobs"]["release"]
    commands = [step["run"] for step in audit["steps"] if "run" in step]
    (command,) = [text for text in commands if text.startswith("mergerisk audit")]
    assert release["needs"] == "audit"
    assert not any("continue-on-error" in step for step in audit["steps"])
    assert "||" not in command
    for text in re.findall(r'--fail-if "([^"]+)"', command):
        assert parse_gate(text).epsilon in load_epsilons()
    uploaded = [step for step in audit["steps"] if "upload-artifact" in step.get("uses", "")]
    assert "audit/audit.html" in uploaded[0]["with"]["path"]
    assert uploaded[0]["if"] == "always()"
    cached = [step["with"]["path"] for step in audit["steps"] if "actions/cache" in step.get("uses", "")]
    assert {".cache/huggingface", ".cache/mergerisk"} <= set(cached)


def load_epsilons() -> list[float]:
    from mergerisk.validation import parse_fraction

    return [
        parse_fraction(text) for text in yaml.safe_load((EXAMPLE / "audit.yaml").read_text())["budgets"]["epsilon"]
    ]


def test_the_page_shows_the_example_as_it_is() -> None:
    for name in ("recipe.yaml", "audit.yaml"):
        assert (EXAMPLE / name).read_text(encoding="utf-8").strip() in PAGE, f"{name} differs from docs/audit.md"


def test_the_page_knows_every_field_scenario_and_measure() -> None:
    for name in (*Audit.model_fields, *Scenario.__args__):
        assert f"| `{name}` |" in PAGE, name
    for name in (*AT_A_BUDGET, *OF_A_CURVE, *OF_A_MODEL):
        assert f"`{name}`" in PAGE, name


@pytest.mark.slow
def test_the_page_knows_every_field_of_the_json(out: Path) -> None:
    from mergerisk.audit.verdict import SCHEMA_VERSION

    found = json.loads((out / "audit.json").read_text())
    assert f"`schema_version` | {SCHEMA_VERSION}" in PAGE
    model = found["models"][0]
    nested = [
        model,
        model["clean_accuracy"],
        model["readings"][0],
        model["curves"][0],
        model["curves"][0]["epsilon50"],
    ]
    for fields in [found, *nested, found["gates"][0], found["gates"][0]["gate"]]:
        for name in fields:
            assert f"`{name}`" in PAGE, name
