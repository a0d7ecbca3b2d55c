"""``mergerisk list``: complete at any width, quick, and not to be stopped by a broken plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mergerisk.attacks.catalogue import ATTACKS
from mergerisk.attacks.parts import FILTERS, INPUTS
from mergerisk.causes.catalogue import CAUSES
from mergerisk.cli.list_commands import LISTS
from mergerisk.cli.list_words import describe_names
from mergerisk.cli.main import main
from mergerisk.defenses.catalogue import DEFENSES
from mergerisk.merging.catalogue import CORRECTIONS, METHODS
from mergerisk.models.sources.families import FAMILIES
from mergerisk.models.sources.loading import BACKBONES, FORMS, LIBRARIES, MODEL_TYPES
from mergerisk.signatures import signatures
from mergerisk.study.fields.surrogates import SURROGATES, Reference
from mergerisk.tasks.hub_datasets import HUB_TASKS
from mergerisk.tasks.starter import STARTER_TASKS

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.registry import Registry


def expected(what: str) -> dict[str, dict[str, str | None]]:
    """Listed name → hyper-parameters with defaults."""
    if what == "merging":
        found = signatures(METHODS) | {f"…+{name}": it for name, it in signatures(CORRECTIONS).items()}
    else:
        registries: dict[str, Registry[Any]] = {"attacks": ATTACKS, "causes": CAUSES, "defenses": DEFENSES}
        found = signatures((registries | {"inputs": INPUTS, "filters": FILTERS})[what])
    return {name: dict(it.parameters) for name, it in found.items() if it is not None}


def blocks(table: str) -> dict[str, str]:
    """Listed name → its lines; a name begins a block, whatever else there is is indented. Without what stands below
    the table."""
    found: dict[str, str] = {}
    for line in table.partition("\n\n")[0].splitlines()[2:]:
        name = line.split()[0] if line[0] != " " else list(found)[-1]
        found[name] = found.get(name, "") + line + "\n"
    return found


def shared_by(name: str, table: str) -> set[str]:
    """The hyper-parameters that the lines below the table give this one, as ``name=default``."""
    lines = table.partition("\n\n")[2].replace("\n  ", " ").splitlines()
    told = [line.split(", if not given another value above: ") for line in lines if "another value above" in line]
    return {
        pair
        for who, pairs in told
        if name not in who.removeprefix("all but ").split(", ")
        for pair in pairs.split(", ")
    }


@pytest.mark.parametrize("what", ["merging", "attacks", "causes", "defenses", "inputs", "filters"])
@pytest.mark.parametrize("width", [None, 80, 100, 120])
def test_every_hyperparameter_stands_beside_its_method_or_once_for_all(what: str, width: int | None) -> None:
    table = describe_names(what, width)
    found = blocks(table)
    assert found.keys() == expected(what).keys()
    for name, parameters in expected(what).items():
        beside = " ".join(found[name].split())
        told = shared_by(name, table)
        for parameter, default in parameters.items():
            shown = f"{parameter}={default}" if default is not None else f"{parameter} (required)"
            # Beside wins over below, so a value below counts only where none is beside.
            assert shown in beside or (shown in told and f"{parameter}=" not in beside), name
        assert {pair.partition("=")[0] for pair in told} <= parameters.keys(), name
    if width is not None:
        assert max(len(line) for line in table.splitlines()) <= width


def test_what_all_attacks_share_is_told_once() -> None:
    table = describe_names("attacks")
    assert table.count("loss='cross_entropy'") == 1
    assert "fgsm" in table.partition("\n\n")[2], "which takes no steps"
    assert "mergerisk list inputs" in table


@pytest.mark.parametrize("what", LISTS)
def test_wrapping_loses_no_word(what: str) -> None:
    table, _, below = describe_names(what).partition("\n\n")
    one_line_each = table.splitlines()[2:]
    for width in (30, 80, 200):
        narrow = describe_names(what, width)
        assert narrow.partition("\n\n")[2].split() == below.split()
        folded = blocks(narrow)
        assert list(folded) == [line.split()[0] for line in one_line_each]
        for line, block in zip(one_line_each, folded.values(), strict=True):
            assert sorted(block.split()) == sorted(line.split())


def test_tasks_of_the_hub_are_listed_with_what_is_pinned() -> None:
    table = describe_names("tasks")
    lines = {name: line.split(None, 1)[1].strip() for name, line in blocks(table).items()}
    assert [*lines] == [*STARTER_TASKS, *HUB_TASKS]
    assert lines["mnist"] == "hub:ylecun/mnist@77f3279092a1c1579b2250db8eafed0ad422088c, config mnist"
    for name, dataset in HUB_TASKS.items():
        assert lines[name].startswith(f"hub:{dataset.name}@{dataset.revision}")


def test_ways_to_name_a_backbone_are_listed() -> None:
    table = describe_names("backbones")
    assert set(blocks(table)) == {*BACKBONES, *FORMS}
    assert set(MODEL_TYPES) == set(FAMILIES)
    assert all(kind in blocks(table)["FOLDER"] for kind in FAMILIES)
    assert all(any(name.startswith(f"{library}:") for name in FORMS) for library in LIBRARIES)


def test_surrogates_are_listed_as_a_study_file_names_them() -> None:
    names = [*blocks(describe_names("surrogates"))]
    assert len(names) == len(SURROGATES)
    for name in names:
        kind = Reference.parse(name.partition("[")[0]).kind
        if "[" in name:
            assert Reference.parse(f"{kind}/x").name == "x"
    alone = names[names.index("merged/NAME")].partition("/")[0]
    with pytest.raises(ValueError, match="merged: say which"):
        Reference.parse(alone)


@pytest.mark.parametrize("what", LISTS)
def test_lists_load_no_pytorch(what: str) -> None:
    program = (
        "import sys\n"
        "from mergerisk.cli.list_words import describe_names\n"
        f"assert describe_names({what!r})\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


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
        "from mergerisk.cli.list_words import describe_names\n"
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
