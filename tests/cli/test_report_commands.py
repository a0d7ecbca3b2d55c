"""``mergerisk report --export`` and ``mergerisk compare`` on finished runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from mergerisk import api
from mergerisk.study import load_study

from .test_cli import call

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_study: Path) -> tuple[Path, Path]:
    """Two runs of one study over one store, the second with one method fewer and another scaling."""
    folder = tmp_path_factory.mktemp("runs")
    study = load_study(tiny_study)
    cut = study.model_copy(update={"merging": study.merging[:2], "attacks": study.attacks[:2]})
    stronger = cut.merging[1].model_copy(update={"parameters": cut.merging[1].parameters | {"scaling": 1.5}})
    other = cut.model_copy(update={"merging": (stronger,), "name": "other"})
    for name, each in (("a", cut), ("b", other)):
        api.run(each, folder / name, store=folder / "store")
    return folder / "a", folder / "b"


def test_export_writes_what_was_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, runs: tuple[Path, Path]
) -> None:
    code, out, _ = call(capsys, "report", runs[0], "--export", tmp_path / "e", "--formats", "json,tex,svg")
    assert code == 0
    listed = out.splitlines()
    assert listed[0] == str(runs[0] / "report.html")
    assert str(tmp_path / "e" / "tables" / "methods.tex") in listed
    assert {line.rsplit(".", 1)[1] for line in listed[1:]} == {"json", "tex", "svg"}
    assert (tmp_path / "e" / "summary.json").read_bytes() == (runs[0] / "summary.json").read_bytes()
    assert [str(file) for file in api.export_report(runs[0], tmp_path / "f", ("tex",))] == [
        line.replace("/e/", "/f/") for line in listed if line.endswith(".tex")
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--formats", "md"], "add --export DIR"),
        (["--export", "DIR", "--formats", "docx"], "unknown format docx"),
    ],
)
def test_export_options_are_checked_first(
    capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    code, _, err = call(capsys, "report", "nowhere", *options)
    assert code == 2
    assert said in err


def test_compare_prints_and_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, runs: tuple[Path, Path]
) -> None:
    code, out, _ = call(capsys, "compare", *runs, "--out", tmp_path / "c")
    assert code == 0
    assert "merging[task_arithmetic].parameters.scaling: 0.4 → 1.5" in out
    assert "Only A has target weight_averaging." in out
    assert "The images are the same for blobs and stripes" in out
    table = pd.read_csv(tmp_path / "c" / "compare.csv")
    assert table["paired"].all()
    assert set(table.loc[table["target"] == "pretrained", "asr_difference"].dropna()) == {0.0}
    assert "task_<wbr>arithmetic" in (tmp_path / "c" / "compare.html").read_text(encoding="utf-8")
    assert not (tmp_path / "c" / "report.html").exists()


def test_compare_of_nothing_is_the_users_mistake(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, runs: tuple[Path, Path]
) -> None:
    code, _, err = call(capsys, "compare", runs[0], tmp_path / "nothing")
    assert code == 2
    assert "no finished run" in err
