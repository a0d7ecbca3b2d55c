"""How images become a model's own pixels, against Pillow, and the same in every command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.models.core.preprocessing import Normalization, Preprocessing, Resizing, parse_preprocessing
from mergerisk.models.sources.classifiers import load_classifier
from mergerisk.models.sources.siblings import in_form
from tests.models.material import images, save_classifier, write_preprocessor

if TYPE_CHECKING:
    from pathlib import Path


def soft_picture(height: int, width: int) -> np.ndarray[Any, Any]:
    """Bytes without hard edges, of which no way to resize makes more than white or less than black."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (3 + channel)) + np.cos(columns / (4 + channel)) for channel in range(3)]
    return (127 + 40 * np.stack(waves, axis=-1)).round().astype(np.uint8)


@pytest.mark.parametrize("number", [0, 2, 3])
@pytest.mark.parametrize("size", [(40, 60), (90, 60), (12, 16)])  # no sample falls between two pixels
def test_resizing_is_pillows(number: int, size: tuple[int, int], tmp_path: Path) -> None:
    picture = soft_picture(*size)
    content = {"size": {"shortest_edge": 24}, "do_center_crop": True, "crop_size": 20, "resample": number}
    resizing = parse_preprocessing(tmp_path, content).resizing
    found = resizing(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)[0]
    short = min(size)
    height, width = (24 * side // short for side in size)
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling(number))
    top, left = (height - 20) // 2, (width - 20) // 2
    expected = np.asarray(resized)[top : top + 20, left : left + 20] / 255
    # Pillow rounds to bytes after each of two passes; bicubic weights, of 1.4 in all, pass the first error on.
    allowed = (0.5 + 1.4 * 0.5 + 0.01) / 255 if number else 1e-6
    assert float((found.permute(1, 2, 0) - torch.from_numpy(expected)).abs().max()) <= allowed


def test_bicubic_stays_among_pixels() -> None:
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    larger = Resizing((32, 32), resample="bicubic")(edge)
    assert (float(larger.min()), float(larger.max())) == (0, 1)


@pytest.mark.parametrize("number", [1, 4, 5, "bicubic"])
def test_what_cannot_be_resampled_so_is_refused(number: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"resample .* is not supported, only 0 \(nearest\)"):
        parse_preprocessing(tmp_path, {"resample": number})


@pytest.mark.parametrize(
    ("family", "about"),
    [
        ("convnext", {"size": {"shortest_edge": 32}, "crop_pct": 0.8, "resample": 3}),
        ("resnet", {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32, "resample": 3}),
        ("vit", {"size": {"height": 32, "width": 32}, "resample": 0}),
        (
            "dinov2",
            {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        ),
        ("deit", {"do_normalize": False}),
    ],
)
def test_a_folder_is_the_same_model_in_attack_and_in_a_study(
    family: str, about: dict[str, Any], tmp_path: Path
) -> None:
    save_classifier(tmp_path, family)
    write_preprocessor(tmp_path, **about)
    head, _ = mr.checkpoint_head(str(tmp_path))
    in_a_study = mr.Classifier(mr.load_encoder(str(tmp_path)), head)
    torch.testing.assert_close(in_a_study(images(47)), load_classifier(str(tmp_path)).module(images(47)))


def test_the_size_that_is_asked_for_takes_whole_images(tmp_path: Path) -> None:
    save_classifier(tmp_path, "convnext")
    write_preprocessor(tmp_path, size={"shortest_edge": 32}, crop_pct=0.8, image_mean=[0] * 3, image_std=[1] * 3)
    assert torch.equal(mr.load_encoder(str(tmp_path), image_size=32).prepare(images(32)), images(32))
    assert not torch.equal(mr.load_encoder(str(tmp_path)).prepare(images(32)), images(32))


def test_a_size_that_the_model_does_not_take_is_refused_with_what_to_do(tmp_path: Path) -> None:
    save_classifier(tmp_path, "vit")
    write_preprocessor(tmp_path, size={"height": 48, "width": 48})
    with pytest.raises(
        UserError, match=r"makes images of 48 × 48 pixels, config\.json says image_size 32; .*to 32$"
    ):
        mr.load_encoder(str(tmp_path))
    assert mr.load_encoder(str(tmp_path), image_size=32).image_size == 32
    save_classifier(tmp_path / "resnet", "resnet")
    write_preprocessor(tmp_path / "resnet", do_resize=False)
    with pytest.raises(UserError, match=r"do_resize: false, and so no size; set image_size$"):
        mr.load_encoder(str(tmp_path / "resnet"))
    assert mr.load_encoder(str(tmp_path / "resnet"), image_size=64).image_size == 64


def test_a_form_survives_the_store(tmp_path: Path) -> None:
    base = mr.load_encoder(str(save_classifier(tmp_path, "vit")))
    own = Preprocessing(Resizing(40, (32, 32), "bicubic"), Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    kept = json.loads(json.dumps({"config": None, "preprocessing": own.fields()}))
    assert Preprocessing.from_fields(kept["preprocessing"]) == own
    made = in_form(base, kept)
    assert made.resizing == own.resizing
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (own.normalization.mean, own.normalization.std))
    torch.testing.assert_close(made.prepare(images(47)), (own.resizing(images(47)) - mean) / std)
