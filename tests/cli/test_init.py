"""``init``: what lies in a folder becomes a file that the other commands take."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from mergerisk.audit import load_audit
from mergerisk.study import load_study

from .test_cli import call

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two classifiers made from it, of which one knows the photographs' classes, and a merge."""
    folder = tmp_path_factory.mktemp("material")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    config = ViTConfig(image_size=8, patch_size=4, **size)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder / "vit-base")
    for name, classes in {"signs": ["go", "stop"], "animals": ["cat", "dog", "hen"]}.items():
        classifier = ViTForImageClassification(
            ViTConfig(image_size=8, patch_size=4, id2label=dict(enumerate(classes)), **size)
        )
        classifier.save_pretrained(folder / "experts" / name)
    shutil.copytree(folder / "experts" / "signs", folder / "merged")
    photographs(folder / "photos", ["go", "stop"])
    return folder


def photographs(folder: Path, classes: Sequence[str]) -> None:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for place in range(4):
            pixels = np.full((8, 8, 3), 20 * place + 100 * label, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{place}.png")


def test_an_audit_says_what_lies_there_and_validates(capsys: pytest.CaptureFixture[str], material: Path) -> None:
    code, out, err = call(capsys, "init", material)
    assert (code, err) == (0, "")
    file = material / "audit.yaml"
    assert out.endswith(f"mergerisk validate {file} && mergerisk audit {file}\n")
    audit = load_audit(file)
    assert Path(audit.base) == material / "vit-base"
    ingredients = {name: Path(path) for name, path in audit.ingredients.items()}
    assert ingredients == {name: material / "experts" / name for name in ("animals", "signs")}
    (task,) = audit.images
    assert task == "signs"  # by its classes
    assert audit.heads.source == "checkpoint"
    assert {name: Path(path) for name, path in audit.merged.items()} == {"merged": material / "merged"}
    assert call(capsys, "validate", file)[0] == 0
    code, _, err = call(capsys, "init", material)
    assert (code, err) == (
        2,
        f"mergerisk: {file}: is there already; give another --out, or --force to replace it\n",
    )
    before = file.read_text()
    assert call(capsys, "init", material, "--force")[0] == 0
    assert file.read_text() == before


def test_options_say_what_cannot_be_told(
    capsys: pytest.CaptureFixture[str], material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(material / "vit-base", tmp_path / "models" / "first")
    shutil.copytree(material / "experts" / "signs", tmp_path / "models" / "second")
    torch.save({}, tmp_path / "models" / "old.pt")
    photographs(tmp_path / "pictures" / "train", ["a", "b"])
    photographs(tmp_path / "pictures" / "test", ["a", "b"])
    np.savez(tmp_path / "other.npz", images=np.zeros((2, 8, 8, 3), dtype=np.uint8), labels=np.array([0, 1]))
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, "init")
    assert code == 2
    assert "Give --base, one of models/first, models/second, or a name on the hub" in err
    assert "note: models/old.pt is pickled: mergerisk convert models/old.pt --out DIR" in err
    # paths of the command line start here, those of the file from its folder
    (tmp_path / "files").mkdir()
    code, out, _ = call(
        capsys, "init", "--base", "models/first", "--images", "mine=pictures", "--out", "files/a.yaml"
    )
    assert code == 0, out
    audit = load_audit("files/a.yaml")
    assert (Path(audit.base).resolve(), [*audit.images]) == (tmp_path / "models" / "first", ["mine"])
    assert audit.heads.source == "linear_probe"  # no classifier knows these classes
    assert [method.name for method in audit.candidates] == ["weight_averaging", "task_arithmetic", "ties"]
    code, _, err = call(capsys, "init", "--base", "models/nowhere/at/all", "--out", "b.yaml")
    assert (code, err.splitlines()[-1]) == (
        2,
        "mergerisk: models/nowhere/at/all: no such file or folder, and no name on the hub",
    )


def test_without_models_a_study_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call(capsys, "init", tmp_path)[0] == 0
    assert [task.source.name for task in load_study(tmp_path / "study.yaml").tasks] == [
        "digits",
        "letters",
        "textures",
    ]
    photographs(tmp_path / "pictures", ["a", "b"])
    assert call(capsys, "init", tmp_path, "--force")[0] == 0
    assert [task.source.name for task in load_study(tmp_path / "study.yaml").tasks] == ["pictures"]
    code, _, err = call(capsys, "init", tmp_path, "--kind", "audit")
    assert code == 2
    assert "no models; give a folder with checkpoints as transformers saves them, or --kind study" in err
    assert call(capsys, "init", tmp_path / "nowhere")[0] == 2
