"""``mergerisk attack`` as a person meets it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from rich.progress import TaskProgressColumn

from mergerisk.cli.attack_words import describe_attack
from mergerisk.progress import bar
from tests.cli.test_cli import call
from tests.crafting.material import picture, save_classifier, save_pictures

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return save_classifier(folder / "attacked"), save_classifier(folder / "other", seed=1)


def test_from_end_to_end(capsys: pytest.CaptureFixture[str], models: tuple[Path, Path], tmp_path: Path) -> None:
    model, other = models
    pictures = save_pictures(tmp_path / "pictures")
    for index in range(5):
        (pictures / "cat" / f"broken {index}.png").write_bytes(b"nothing")
    options = ["--attack", "ni_fgsm", "--set", "steps=3", "--set", "inputs=[{input: si, scales: 2}]"]
    options += ["--epsilon", "4/255", "--target", other, "--device", "cpu", "--limit", "9"]
    code, out, err = call(capsys, "attack", model, pictures, "--out", tmp_path / "out", *options)
    assert code == 0, err
    for words in (
        f"{model} (attacked)",
        "clean accuracy",
        "ASR (95 %) of",
        "asr_all",
        "of 9 predictions",
        str(tmp_path / "out"),
    ):
        assert words in out
    assert len(out.splitlines()[3].split("  ")) > 4, "a row per target"
    summary = json.loads((tmp_path / "out" / "attack.json").read_text())
    assert summary["attack"]["inputs"] == [{"input": "si", "scales": 2}]
    assert summary["epsilon"] == 4 / 255
    code, _, err = call(capsys, "attack", model, pictures, "--out", tmp_path / "out")
    assert code == 2
    assert "--force" in err
    code, out, err = call(
        capsys, "attack", model, pictures, "--out", tmp_path / "out", "--force", "--attack", "fgsm", "--targeted"
    )
    assert code == 0, err
    assert "targeted success" in out
    assert (
        "left out (not one of PNG, JPEG, WEBP, BMP, TIFF): cat/broken 0.png, cat/broken 1.png, cat/broken 2.png and 2 more"
        in out
    )


def test_a_folder_without_labels(
    capsys: pytest.CaptureFixture[str], models: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "flat").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "flat" / "a.jpg")
    code, out, err = call(
        capsys, "attack", models[0], tmp_path / "flat", "--out", tmp_path / "out", "--set", "steps=2"
    )
    assert code == 0, err
    assert "clean agreement" in out
    assert "no labels given" in out
    assert (tmp_path / "out" / "a.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epsilon", "much"], "--epsilon: must be a number or a fraction"),
        (["--set", "steps"], "write key=value"),
        (["--set", "steps=many"], "steps: must be a whole number"),
        (["--attack", "mi_fgms"], "did you mean 'mi_fgsm'"),
        (["--norm", "l1"], "'l1' is not one of"),
        (["--labels", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["--target", "nowhere/at/all"], "no such file or folder"),
        (
            ["--attack", "universal", "--set", "file=nowhere.npy", "--target", "nowhere/at/all"],
            "nowhere.npy: cannot be",
        ),
    ],
)
def test_mistakes(
    capsys: pytest.CaptureFixture[str], models: tuple[Path, Path], tmp_path: Path, options: list[str], message: str
) -> None:
    pictures = save_pictures(tmp_path / "pictures", per_class=1)
    code, _, err = call(capsys, "attack", models[0], pictures, "--out", tmp_path / "out", *options)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "out").exists()


def test_what_one_must_know_is_said(tmp_path: Path) -> None:
    rates = dict.fromkeys(
        ("clean_accuracy", "asr", "asr_low", "asr_high", "asr_all", "asr_all_low", "asr_all_high", "relative_asr")
    )
    summary = {
        "model": "m",
        "labels": "folders",
        "attack": {"name": "fgsm"},
        "attacked": 7,
        "rates": [{"model": "m", "images": 7, "images_both_correct": 0, **rates}],
        "remarks": ["a remark"],
        "saving": {"predictions_changed": 1, "wrong_before": 3, "wrong_after": 2},
        "zero_gradient_images": 4,
        "skipped": [],
    }
    said = describe_attack(tmp_path, summary)
    assert "a remark" in said
    assert "4 of 7 images met gradients of exactly zero: try --set loss=margin" in said
    assert "changed 1 of 7 predictions (3 wrong before, 2 after)" in said
    assert "None" not in said


def test_progress_speaks_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar.time, "monotonic", iter([0.0, 5.0, 20.0]).__next__)
    with bar.Bar("crafting", TaskProgressColumn()) as progress:
        for done in (1, 2, 4):
            progress.listen(done, 8)
    assert capsys.readouterr().err == "[20 s] crafting, 50%, about 20 s left\n"
