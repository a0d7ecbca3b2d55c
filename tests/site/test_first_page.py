"""The site's first page: its file and its commands lead from models to a verdict, here on fewer images."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mergerisk.cli.main import cli
from tests.audit.test_example import script
from tests.cli.test_cli import call
from tests.test_pages import BLOCKS, ROOT, commands

if TYPE_CHECKING:
    from pathlib import Path

PAGE = [block for block in BLOCKS if block.page == "docs/index.md"]


def test_its_commands_exist_and_name_what_is_there() -> None:
    found = [command for block in PAGE if not block.kind for command in commands(block)]
    assert found == [
        "python -m venv .venv", ". .venv/bin/activate", "pip install -c constraints.txt .", "mergerisk doctor",
        "python examples/audit/make_material.py", "mergerisk audit verdict.yaml",
    ]  # fmt: skip
    for command in found:
        program, *words = shlex.split(command)
        if program == "mergerisk":
            cli.commands[words[0]].make_context(words[0], words[1:])
    assert (ROOT / "constraints.txt").is_file()
    assert (ROOT / "examples" / "audit" / "make_material.py").is_file()


@pytest.mark.slow
def test_it_leads_to_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [block for block in PAGE if block.kind == "yaml"]
    (shown,) = [block for block in PAGE if block.kind == "text"]
    script().make_material(tmp_path / "examples" / "audit" / "material", epochs=1, images=60)
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(block.text) | {"images_per_task": 10, "attacks": "fgsm"}
    (tmp_path / "verdict.yaml").write_text(yaml.safe_dump(content))
    code, out, err = call(capsys, "audit", "verdict.yaml")
    assert code in {0, 3}, err
    assert (tmp_path / "audits" / "verdict" / "audit.html").is_file()
    # What the page shows has the figures of 200 images, and the same words around them.
    for words in (
        "ASR at 4/255",
        "worst attacker",
        "clean accuracy",
        "weight_averaging",
        "verdict: audits/verdict",
    ):
        assert words in out
        assert words in shown.text
    assert re.search(r"gate (FAILED|passed) on ", out)
    # The page from Python is of the same material.
    names: dict[str, Any] = {}
    (snippet,) = [block for block in BLOCKS if block.page == "docs/python.md" and block.kind == "python"]
    exec(snippet.text, names)
    for found in names["found"].values():
        assert found.asr(4 / 255).images > 10
    assert (tmp_path / "transfer.pdf").read_bytes().startswith(b"%PDF")
