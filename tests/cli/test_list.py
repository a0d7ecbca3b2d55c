"""``mergerisk list``: complete at any width, quick, and not to be stopped by a broken plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.cli.main import main
from mergerisk.cli.words import describe_names
from mergerisk.merging.catalogue import CORRECTIONS, METHODS
from mergerisk.signatures import signatures

if TYPE_CHECKING:
    from pathlib import Path


def expected(what: str) -> dict[str, dict[str, str | None]]:
    """Listed name → hyper-parameters with defaults."""
    if what == "attacks":
        found = signatures(ATTACKS)
    else:
        found = signatures(METHODS) | {f"…+{name}": it for name, it in signatures(CORRECTIONS).items()}
    return {name: dict(it.parameters) for name, it in found.items() if it is not None}


def blocks(table: str) -> dict[str, str]:
    """Listed name → its lines; a name begins a block, whatever else there is is indented."""
    found: dict[str, str] = {}
    for line in table.splitlines()[2:]:
        name = line.split()[0] if line[0] != " " else list(found)[-1]
        found[name] = found.get(name, "") + line + "\n"
    return found


@pytest.mark.parametrize("what", ["merging", "attacks"])
@pytest.mark.parametrize("width", [None, 80, 100, 120])
def test_every_hyperparameter_stands_beside_its_method(what: str, width: int | None) -> None:
    table = describe_names(what, width)
    found = blocks(table)
    for name, parameters in expected(what).items():
        for parameter, default in parameters.items():
            shown = f"{parameter}={default}" if default is not None else f"{parameter} (required)"
            assert shown in " ".join(found[name].split()), name
    if width is not None:
        assert max(len(line) for line in table.splitlines()) <= width


@pytest.mark.parametrize("what", ["tasks", "backbones", "merging", "attacks", "studies"])
def test_wrapping_loses_no_word(what: str) -> None:
    one_line_each = describe_names(what).splitlines()[2:]
    for width in (30, 80, 200):
        folded = blocks(describe_names(what, width))
        assert list(folded) == [line.split()[0] for line in one_line_each]
        for line, block in zip(one_line_each, folded.values(), strict=True):
            assert sorted(block.split()) == sorted(line.split())


def test_data_and_encoders_are_told() -> None:
    cells = {name: line.split()[1:3] for name, line in blocks(describe_names("merging")).items()}
    assert cells["ties"] == ["none", "one"]
    assert cells["adamerging"] == ["images", "one"]
    assert cells["emr"] == ["none", "per"]
    assert cells["…+surgery"] == ["images", "unchanged"]
    assert cells["…+surgery_v2"] == ["images", "per"]


def test_a_terminal_gets_what_fits_and_a_pipe_one_line_per_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    main_without_exit("list", "merging")
    piped = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main_without_exit("list", "merging")
    assert capsys.readouterr().out == describe_names("merging", 90) + "\n"
    assert piped == describe_names("merging") + "\n"
    assert len(piped.splitlines()) == 2 + len(METHODS.names()) + len(CORRECTIONS.names())


def main_without_exit(*arguments: str) -> None:
    try:
        main(list(arguments))
    except SystemExit as end:
        assert not end.code  # noqa: PT017  # click exits after every command


def test_plugins_are_listed_without_being_imported_and_broken_ones_too(tmp_path: Path) -> None:
    """A package whose import fails loudly, one that is gone, and nothing of PyTorch or of our own methods."""
    (tmp_path / "loud").mkdir()
    (tmp_path / "loud" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "loud" / "methods.py").write_text(
        "from mergerisk.merging import TensorMerging\n"
        "from mergerisk.validation import hyperparameters\n"
        "@hyperparameters\nclass Median(TensorMerging):\n    pull: float\n    soft: bool = False\n"
    )
    about = tmp_path / "loud-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[mergerisk.merging]\nmedian = loud.methods:Median\ngone = gone.methods:Gone\n"
    )
    program = (
        "import sys\n"
        "from mergerisk.cli.words import describe_names\n"
        "print(describe_names('merging'))\n"
        "ours = {name for name in sys.modules if name.startswith('mergerisk.merging.')}\n"
        "assert ours == {'mergerisk.merging.catalogue'}, ours\n"
        "assert not {'torch', 'pydantic', 'loud'} & set(sys.modules)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = {name: " ".join(line.split()) for name, line in blocks(result.stdout).items()}
    assert lines["median"] == "median none one plugin from loud pull (required), soft=False"
    assert lines["gone"] == "gone ? ? plugin from loud (unknown: no source found)"
