"""Whole classifiers: from folders, factories, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from mergerisk.errors import UserError
from mergerisk.models.sources.classifiers import load_classifier
from tests.crafting.material import NAMES, save_classifier

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("classifier") / "model")


def copy_of(folder: Path, to: Path, **preprocessing: Any) -> str:
    """The same model with other preprocessing; the usual weights are linked."""
    to.mkdir()
    (to / "config.json").write_bytes((folder / "config.json").read_bytes())
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    if preprocessing:
        (to / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return str(to)


def backbone_logits(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    from transformers import ViTForImageClassification

    with torch.no_grad():
        return ViTForImageClassification.from_pretrained(folder).eval()(pixel_values=pixels).logits


def images(height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_pixels_are_resized_and_normalised_as_the_folder_says(folder: Path) -> None:
    loaded = load_classifier(str(folder))
    assert loaded.class_names == NAMES
    assert not loaded.remark
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    wide = images(20, 40)
    small = F.interpolate(wide, (16, 16), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
    torch.testing.assert_close(loaded.module(wide), backbone_logits(folder, (small - mean) / std))


def test_without_a_preprocessor_the_assumption_is_said(folder: Path, tmp_path: Path) -> None:
    loaded = load_classifier(copy_of(folder, tmp_path / "bare"))
    assert "0.5" in loaded.remark
    torch.testing.assert_close(loaded.module(images()), backbone_logits(folder, 2 * images() - 1))


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        (
            {"size": 16, "do_normalize": False},
            lambda x: F.interpolate(x, (16, 16), mode="bilinear", antialias=True),
        ),
        (
            {"size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": 16, "do_normalize": False},
            lambda x: F.interpolate(x, (16, 32), mode="bilinear", antialias=True)[..., 8:24],
        ),
        (
            {"size": {"shortest_edge": 16}, "crop_pct": 0.8, "do_normalize": False},
            lambda x: F.interpolate(x, (20, 40), mode="bilinear", antialias=True)[..., 2:18, 12:28],
        ),
        (
            {"size": {"height": 12, "width": 12}, "do_center_crop": True, "crop_size": 16, "do_normalize": False},
            lambda x: F.pad(F.interpolate(x, (12, 12), mode="bilinear", antialias=True), (2, 2, 2, 2)),
        ),
        (
            {"size": 16, "rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
            lambda x: 2 * F.interpolate(x, (16, 16), mode="bilinear", antialias=True) - 1,
        ),
    ],
)
def test_sizes_crops_and_scales(folder: Path, tmp_path: Path, about: dict[str, Any], expected: Any) -> None:
    module = load_classifier(copy_of(folder, tmp_path / "other", **about)).module
    wide = images(24, 48)
    torch.testing.assert_close(module(wide), backbone_logits(folder, expected(wide)))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"do_flip_channel_order": True}, "do_flip_channel_order is not supported"),
        ({"size": {"longest_edge": 16}}, "cannot be understood"),
        ({"size": 0}, "cannot be understood"),
        ({"size": 16, "image_mean": [0.5]}, "three numbers"),
        ({"size": 16, "image_std": [0.0, 1, 1]}, "above 0"),
    ],
)
def test_preprocessing_that_is_not_understood_is_refused(
    folder: Path, tmp_path: Path, about: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_classifier(copy_of(folder, tmp_path / "odd", **about))


def test_folders_that_hold_no_classifier(folder: Path, tiny_vit: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights are not read"):
        load_classifier(str(pickled))
    with pytest.raises(UserError, match="classifier with its head"):
        load_classifier(str(tiny_vit))
    with pytest.raises(UserError, match="no such file or folder"):
        load_classifier(str(tmp_path / "nowhere" / "at" / "all"))
    with pytest.raises(UserError, match="give the folder"):
        load_classifier(str(folder / "model.safetensors"))
    code = tmp_path / "code"
    copy_of(folder, code)
    (code / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "evil.Config"}}))
    (code / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UserError, match="cannot be loaded as an image classifier"):
        load_classifier(str(code))


def test_factories() -> None:
    loaded = load_classifier("tests.crafting.material:named")
    assert loaded.class_names == ("dark", "bright")
    assert load_classifier("tests.crafting.material:unnamed").class_names is None
    for name, message in (
        ("broken", "KeyError"),
        ("nothing", "must return a torch.nn.Module, got str"),
        ("absent", "has no .absent."),
    ):
        with pytest.raises(UserError, match=message):
            load_classifier(f"tests.crafting.material:{name}")
    with pytest.raises(UserError, match="ModuleNotFoundError"):
        load_classifier("no_such_package:factory")


def test_factories_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_this_test.py").write_text("import torch\nmake = torch.nn.Flatten\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_classifier("mine_for_this_test:make").module, torch.nn.Flatten)
