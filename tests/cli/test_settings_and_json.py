"""``--set`` on commands that take a file, ``--json`` on commands that print results, ``runs`` and ``show``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.given_settings import with_settings
from mergerisk.study import load_study
from tests.tiny import write_tiny_study

from .test_cli import call

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    study = write_tiny_study(folder, tiny_vit, attacks=["fgsm"], merging=["weight_averaging"], images_per_task=4)
    mr.run(study, folder / "runs" / "first", progress=False)
    return folder


def test_a_value_takes_the_place_of_the_files_and_leaves_the_rest() -> None:
    content = {"a": {"b": [1, {"c": 2}], "d": 3}, "e": 4}
    changed = with_settings(content, ["a.b.1.c=[2/255, x]", "a.f.g=yes please", "e={h: 5}"])
    assert changed == {
        "a": {"b": [1, {"c": ["2/255", "x"]}], "d": 3, "f": {"g": "yes please"}},
        "e": {"h": 5},
    }
    assert content == {"a": {"b": [1, {"c": 2}], "d": 3}, "e": 4}
    assert with_settings(content, []) == content


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["a"], "--set 'a': write key=value, such as budgets.epsilon=[2/255]"),
        (["=3"], "write key=value"),
        (["a=1", "a=2"], "--set a: given twice"),
        (["a=[1"], "--set a: not valid YAML"),
        (["l.2=1"], "--set l.2: l is a list; write a place of it, from 0 … 1"),
        (["l.x=1"], "l is a list"),
        (["e.x=1"], "--set e.x: e is 4; give all of it: --set e=VALUE"),
        (["a\x00=1"], "cannot be printed"),
        ([f"a={'9' * 500}"], "a text of 500 digits for a number"),
    ],
)
def test_settings_that_lead_nowhere_are_refused_in_a_line(settings: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        with_settings({"l": [0, 1], "e": 4}, settings)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_command_that_takes_a_file_takes_values_instead_of_its_own(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    study = finished / "study.yaml"
    assert load_study(study, settings=["images_per_task=3"]).images_per_task == 3
    (tmp_path / "claims.yaml").write_text("claims: []\ninclude: [all]\n")
    (tmp_path / "audit.yaml").write_text("base: a\nimages: b\n")
    (tmp_path / "recipe.yaml").write_text("method: ties\nbase: a\nexperts: [b]\n")
    for words in (
        ["run", study, "--set", "nonsense=1"],
        ["plan", study, "--set", "nonsense=1"],
        ["validate", study, "--set", "nonsense=1"],
        ["check", study, "--set", "nonsense=1"],
        ["audit", tmp_path / "audit.yaml", "--set", "nonsense=1"],
        ["merge", tmp_path / "recipe.yaml", "--out", tmp_path / "m", "--set", "nonsense=1"],
        ["claims", "poster", "--claims", tmp_path / "claims.yaml", "--set", "nonsense=1"],
    ):
        code, out, err = call(capsys, *words)
        assert (code, out) == (2, ""), words
        assert "nonsense" in err, words
    code, out, _ = call(capsys, "plan", study, "--set", "merging=[ties]", "--json", "-")
    assert (code, json.loads(out)["settings"]) == (0, 2)
    assert call(capsys, "claims", "poster", "--set", "a=1")[2].endswith("add --claims FILE\n")
    for command in ("plan", "validate"):  # what resolving finds is about the file, too
        code, _, err = call(capsys, command, study, "--set", "merging.0={method: ties, density: 7}")
        assert (code, err.startswith(f"mergerisk: {study}: merging[0]")) == (2, True), err


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["plan", "STUDY"], "stages"),
        (["validate", "STUDY"], "is"),
        (["run", "STUDY", "--out", "RUN"], "results"),
        (["show", "RUN"], "results"),
        (["runs", "RUNS"], "runs"),
        (["compare", "RUN", "RUN"], "settings"),
        (["claims", "RUN"], "verdicts"),
        (["list", "attacks"], None),
        (["list"], "attacks"),
        (["store", "du", "RUN"], "kinds"),
        (["store", "verify", "RUN"], "sound"),
        (["store", "gc", "RUN", "--dry-run"], "removed"),
    ],
)
def test_what_is_printed_is_written_as_strict_json_or_printed_alone(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path, words: list[str], key: str | None
) -> None:
    run = finished / "runs" / "first"
    places = {"STUDY": str(finished / "study.yaml"), "RUN": str(run), "RUNS": str(finished / "runs")}
    asked = [places.get(word, word) for word in words]
    code, said, _ = call(capsys, *asked, "--json", tmp_path / "found.json")
    assert code == 0
    written = (tmp_path / "found.json").read_text()
    assert said
    assert not said.startswith(("{", "["))
    code, out, _ = call(capsys, *asked, "--json", "-")
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert code == 0
    timed = {"run"}  # when it ran, and for how long
    assert without(found, timed) == without(json.loads(written), timed)
    assert key is None or key in found


def without(found: Any, names: set[str]) -> Any:
    return {key: value for key, value in found.items() if key not in names} if isinstance(found, dict) else found


def test_runs_are_found_whatever_became_of_them(
    capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "study.yaml").write_text("name: half\n")
    (tmp_path / "deep" / "broken").mkdir(parents=True)
    (tmp_path / "deep" / "broken" / "study.yaml").write_text("name: once\n")
    (tmp_path / "deep" / "broken" / "run.json").write_text("{")
    (tmp_path / "first").symlink_to(finished / "runs" / "first")  # a link may lead anywhere: it is left alone
    (tmp_path / "a file").write_text("")
    code, out, _ = call(capsys, "runs", tmp_path, "--json", "-")
    assert code == 0
    found = {run["study"]: run for run in json.loads(out)["runs"]}
    assert {name: run["state"] for name, run in found.items()} == {"half": "not finished", "broken": "damaged"}
    code, out, _ = call(capsys, "runs", finished / "runs" / "first")
    assert code == 0
    assert "finished" in out
    code, out, _ = call(capsys, "runs", tmp_path / "begun" / "..")
    assert "1 run to resume with: mergerisk run STUDY --out FOLDER" in out
    (tmp_path / "empty").mkdir()
    assert "make one with: mergerisk run demo" in call(capsys, "runs", tmp_path / "empty")[1]
    assert call(capsys, "runs", tmp_path / "nowhere")[0] == 2


def test_a_result_is_shown_again_as_it_was_printed(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    run = finished / "runs" / "first"
    before = {file: file.stat().st_mtime_ns for file in run.iterdir()}
    code, out, _ = call(capsys, "show", run)
    assert code == 0
    assert "weight_averaging" in out
    assert {file: file.stat().st_mtime_ns for file in run.iterdir()} == before
    assert call(capsys, "run", finished / "study.yaml", "--out", run)[1] == out


def test_a_shell_completes_commands_and_studies(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MERGERISK_COMPLETE", "bash_complete")
    for words, completed in {
        "mergerisk val": "plain,validate",
        "mergerisk run starter-d": "plain,starter-defenses",
    }.items():
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        code, out, err = call(capsys)
        assert (code, err) == (0, "")
        assert completed in out.splitlines()
