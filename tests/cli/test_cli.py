"""The command line as a person meets it: one line per mistake, exit code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mergerisk.cli.list_commands import LISTS
from mergerisk.cli.main import main
from mergerisk.progress.study_progress import CHECKING
from mergerisk.study.shipped import shipped_studies
from tests.tiny import arrays, write_tiny_study


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("what", LISTS)
def test_list_prints_a_table(capsys: pytest.CaptureFixture[str], what: str) -> None:
    code, out, _ = call(capsys, "list", what)
    assert code == 0
    expected = {
        "tasks": "street_numbers",
        "backbones": "starter-vit",
        "surrogates": "other_architecture",
        "merging": "+surgery",
        "attacks": "mi_fgsm",
        "causes": "gradient_alignment",
        "defenses": "bit_depth",
        "inputs": "bsr",
        "filters": "ti",
        "ensembles": "svre",
        "searches": "simba_ods",
        "tables": "stealth",
        "listeners": "mlflow",
        "studies": "starter",
    }
    assert expected[what] in out


def test_list_alone_says_what_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "list")
    assert (code, err) == (0, "")
    told = [line.partition("  ") for line in out.splitlines()[2:]]
    assert all(len(text.split()) > 1 for _, _, text in told)
    for command, _, _ in told:
        assert call(capsys, *command.split()[1:])[0] == 0
    assert len(told) == len(LISTS) == 14


def test_a_shipped_study_is_listed_with_what_it_is_and_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    lines = call(capsys, "list", "studies")[1].splitlines()[2:]
    assert {line.split()[0] for line in lines} == {*shipped_studies()}
    for line in lines:
        name, *_, path = line.split()
        content = yaml.safe_load(Path(path).read_text())
        assert content["name"] == name
        assert " ".join(content["description"].split()) in line


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version")[1].startswith("mergerisk")
    assert "mi_fgsm" in call(capsys, "attack", "--help")[1]
    code, out, _ = call(capsys, "run", "--help")
    assert code == 0
    for option in ("--out", "--seed", "--limit", "--device", "--workers", "--store"):
        assert option in out


def test_plan_counts_and_knows_what_is_cached(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_vit: Path
) -> None:
    study = write_tiny_study(tmp_path, tiny_vit, images_per_task=4, attacks=["fgsm"], merging=["ties"])
    code, out, _ = call(capsys, "plan", study, "--out", tmp_path / "run")
    assert code == 0
    assert "1 merging method × 2 tasks × 1 attack = 2 settings" in out
    lines = {line.split()[0]: line.split()[1:3] for line in out.splitlines() if line.split()[1:2]}
    assert lines["craft"] == ["12", "0"]
    assert not (tmp_path / "run").exists(), "planning must not make anything"
    assert call(capsys, "run", study, "--out", tmp_path / "run", "--workers", 1)[0] == 0
    _, out, _ = call(capsys, "plan", study, "--out", tmp_path / "run")
    assert "left: 0 stages" in out


def test_run_then_report(capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_vit: Path) -> None:
    study = write_tiny_study(tmp_path, tiny_vit, images_per_task=4, attacks=["fgsm"], merging=["ties"])
    code, out, err = call(capsys, "run", study, "--out", tmp_path / "run", "--workers", 1)
    assert code == 0, err
    assert "clean accuracy" in out
    assert "ties" in out
    assert str(tmp_path / "run" / "report.html") in out
    assert "stages" in err
    code, out, _ = call(capsys, "report", tmp_path / "run")
    assert code == 0
    assert out.strip() == str(tmp_path / "run" / "report.html")


def mistakes(tmp_path: Path, tiny_vit: Path) -> dict[str, tuple[list[object], str]]:
    """Arguments that must fail, and what the line must say."""

    def study(name: str, **changes: Any) -> Path:
        return write_tiny_study(tmp_path / name, tiny_vit, **changes)

    good = study("good")
    np.savez(tmp_path / "one.npz", **(arrays("stripes") | {"labels": np.zeros(90, dtype=int)}))
    bright = arrays("stripes")["images"].astype(float)
    np.savez(tmp_path / "bright.npz", **(arrays("stripes") | {"images": bright}))
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "out"
    return {
        "unknown method": (["run", study("a", merging=["tie"]), "--out", out], "did you mean 'ties'"),
        "zero budget": (["run", study("b", budgets={"epsilon": [0]}), "--out", out], "budgets.epsilon[0]"),
        "budget above 1": (["run", study("c", budgets={"epsilon": [8]}), "--out", out], "budgets: epsilon: an L∞ budget"),
        "negative count": (["run", study("d", images_per_task=-1), "--out", out], "images_per_task"),
        "one class": (["run", study("e", tasks=[str(tmp_path / "one.npz")]), "--out", out], "has 1 class"),
        "bright pixels": (["run", study("f", tasks=[str(tmp_path / "bright.npz")]), "--out", out], "[0, 1]"),
        "missing expert": (["run", study("g", experts={"files": {"blobs": "x.safetensors"}}), "--out", out], "x.safetensors"),
        "no such study": (["run", "stater"], "did you mean 'starter'"),
        "unwritable output": (["run", good, "--out", tmp_path / "file" / "run"], "cannot be written to"),
        "unwritable store": (["run", good, "--out", out, "--store", tmp_path / "file"], "cannot be written to"),
        "limit": (["run", good, "--out", out, "--limit", 0], "--limit must be 1 or more, got 0"),
        "seed": (["run", good, "--out", out, "--seed", -1], "--seed must be 0 or more, and below 2**32, got -1"),
        "workers": (["run", good, "--out", out, "--workers", 0], "--workers must be 1 or more, got 0"),
        "limit is a word": (["run", good, "--limit", "few"], "'few' is not a valid integer"),
        "unknown option": (["run", good, "--limt", 3], "--limt"),
        "unknown command": (["rn", good], "'rn'"),
        "unknown list": (["list", "attack"], "'attack'"),
        "no arguments": (["run"], "STUDY"),
        "report of nothing": (["report", tmp_path / "nothing"], "no finished run"),
        "validate": (["validate", study("h", attacks=["fgms"])], "did you mean 'fgsm'"),
        "plan": (["plan", study("i", surrogates=["expertt"])], "surrogates[0]"),
    }  # fmt: skip


NAMES = [
    "unknown method",
    "zero budget",
    "budget above 1",
    "negative count",
    "one class",
    "bright pixels",
    "missing expert",
    "no such study",
    "unwritable output",
    "unwritable store",
    "limit",
    "seed",
    "workers",
    "limit is a word",
    "unknown option",
    "unknown command",
    "unknown list",
    "no arguments",
    "report of nothing",
    "validate",
    "plan",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_vit: Path, name: str
) -> None:
    cases = mistakes(tmp_path, tiny_vit)
    assert set(cases) == set(NAMES)
    arguments, message = cases[name]
    code, _, err = call(capsys, *arguments)
    assert code == 2, err
    assert message in err
    assert len(err.removeprefix(f"{CHECKING}\n").strip().splitlines()) == 1, err
    assert "Traceback" not in err
    # Before any training begins: nothing but the store's empty folders may exist.
    assert not list(tmp_path.glob("out/store/objects/*"))


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--debug", "run", "stater"], ["run", "stater", "--debug"]):
        code, _, err = call(capsys, *arguments)
        assert code == 2
        assert "Traceback" in err


def test_a_disk_too_small_is_said_before_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 * 2**20))
    code, _, err = call(capsys, "run", tiny_study, "--out", tmp_path / "run")
    assert code == 2
    assert "10 MiB free" in err


def test_our_own_faults_exit_with_1_and_ask_for_a_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mergerisk import api

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(api, "write_report", broken)
    code, _, err = call(capsys, "report", "somewhere")
    assert code == 1
    assert "internal error, please report it: RuntimeError: boom" in err
    assert "Traceback" not in err


def test_the_installed_command_works() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mergerisk", "list", "attacks"], capture_output=True, text=True, check=True
    )
    assert "di_fgsm" in result.stdout
