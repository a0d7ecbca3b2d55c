"""``mergerisk claims`` as a person meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from mergerisk.cli.claims_words import WIDTH
from mergerisk.statistics import poster_tables
from tests.cli.test_cli import call
from tests.statistics.made_up import outcomes

if TYPE_CHECKING:
    from pathlib import Path


def test_the_poster_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "claims", "poster", "--json", "found.json")
    assert code == 0
    for text in (
        "46 of 48", "15 of 24", "+24.05 points", "-14.60 points", "-14.91 points", "10.1145/3708821.3735347",
        "cars 8,041, eurosat 5,400, mnist 10,000", "near 100 % from everywhere",
    ):  # fmt: skip
        assert text in out, text
    assert max(map(len, out.splitlines())) <= WIDTH
    document = json.loads((tmp_path / "found.json").read_text())
    answers = {verdict["name"]: verdict["answer"] for verdict in document["verdicts"]}
    assert answers["poster_delta"] == "inconclusive"  # of the worst attacker
    delta = next(verdict for verdict in document["verdicts"] if verdict["name"] == "poster_delta")
    assert {part["attacker"]: part["answer"] for part in delta["attackers"]} == {
        "finetuned": "inconclusive", "pretrained": "supported", "pooled": "supported",
    }  # fmt: skip
    assert document["schema_version"] == 2
    assert answers["poster_surgery"] == "inconclusive"


def test_the_posters_table_is_known_by_its_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = poster_tables().rates
    names = {"task": "dataset", "attack": "attack", "surrogate": "surrogate", "target": "target"}
    copy = table.rename(columns=names)[list(names.values())].assign(asr_all_percent=100 * table["asr_all"])
    copy.sample(frac=1, random_state=0).to_csv(tmp_path / "table.csv", index=False)
    code, out, _ = call(capsys, "claims", tmp_path / "table.csv")
    assert code == 0
    assert "cars 8,041" in out
    assert "46 of 48" in out


def test_a_runs_folder_with_claims_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    chances = {"ties": 0.7, "ties+surgery": 0.3}
    outcomes(chances, images=60).to_parquet(tmp_path / "outcomes.parquet")
    (tmp_path / "study.yaml").write_text(
        "merging: [{method: ties, label: ties}, {method: x, label: ties+surgery}]\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "claims:\n"
        "  - name: surgery_helps\n"
        "    sentence: Surgery lowers ASR.\n"
        "    kind: paired\n"
        "    measure: asr\n"
        "    expect: lower\n"
        "    first: {correction: surgery}\n"
        "    second: {correction: none}\n"
    )
    arguments = ("claims", tmp_path, "--claims", tmp_path / "mine.yaml", "--correction", "bh", "--seed", 3)
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    assert "surgery_helps: SUPPORTED" in out
    assert "images within tasks, 1000 resamples" in out
    assert "McNemar on 36 pairs of settings" in out
    assert max(map(len, out.splitlines())) <= WIDTH
    assert call(capsys, *arguments)[1] == out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "no column for the task"),
        ("", "cannot be read as a table"),
        ("task,attack,surrogate,target,asr\nx,y,expert,z,57\n", "if it is in percent, name it so"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "t.csv").write_text(content)
    code, out, error = call(capsys, "claims", tmp_path / "t.csv")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error


def test_no_such_source(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no such file or folder" in call(capsys, "claims", tmp_path / "nothing")[2]
    assert "holds neither outcomes.parquet nor results.parquet" in call(capsys, "claims", tmp_path)[2]
    pd.DataFrame({"task": ["a"]}).to_parquet(tmp_path / "outcomes.parquet")
    assert "lacks the column attack" in call(capsys, "claims", tmp_path)[2]


def test_claims_load_no_pytorch() -> None:
    program = (
        "import sys\n"
        "from mergerisk.cli.main import main\n"
        "try:\n"
        "    main(['claims', 'poster'])\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
