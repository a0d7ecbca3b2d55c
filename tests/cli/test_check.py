"""``mergerisk check`` as a person meets it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.checking.material import save_model
from tests.cli.test_cli import call
from tests.crafting.material import save_pictures

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("check")
    return save_model(folder / "model"), save_pictures(folder / "pictures", 8)


def test_a_model_that_is_measured_as_it_is_meant_to_be(
    capsys: pytest.CaptureFixture[str], material: tuple[Path, Path], tmp_path: Path
) -> None:
    code, out, err = call(capsys, "check", *material, "--json", tmp_path / "check.json")
    assert code == 0, err
    for words in (
        "own library: transformers' AutoModelForImageClassification",
        "in attack: same prediction on 24 of 24 images (100.0%, 86.2 to 100.0)",
        "mergerisk measures the model as its own library does",
        "… and 4 more, which differ less",
        "0.400, 0.500, 0.600",
    ):
        assert words in " ".join(out.split())
    written = json.loads((tmp_path / "check.json").read_text())
    assert written["agrees"] is True
    assert len(written["images"]) == 24


def test_the_gate_and_the_mistake(
    capsys: pytest.CaptureFixture[str], material: tuple[Path, Path], tmp_path: Path
) -> None:
    code, out, _ = call(capsys, "check", *material, "--size", "4", "--json", tmp_path / "check.json")
    assert code == 3
    assert "likely reason: in a study: the task brings images to 4 × 4 pixels" in out
    assert "measures the model as" not in out
    assert json.loads((tmp_path / "check.json").read_text())["agrees"] is False
    code, out, err = call(capsys, "check", material[0], tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "no such folder" in err
    assert len(err.strip().splitlines()) == 1


def test_features_have_a_table_too(
    capsys: pytest.CaptureFixture[str], material: tuple[Path, Path], tiny_vit: Path
) -> None:
    code, out, err = call(capsys, "check", tiny_vit, material[1])
    assert code == 0, err
    assert "within 10.0%" in out
    assert "none; 64 features" in out
