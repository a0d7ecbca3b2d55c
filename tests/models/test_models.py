"""Encoders, heads, classifiers, and what is refused before anything is built on it."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import ViTModel
from transformers.utils import logging

from mergerisk.errors import UserError
from mergerisk.models import Classifier, Head, backbone_identity, extract_features, load_encoder, load_expert
from mergerisk.models.quiet import quiet_transformers
from tests.tiny import tiny_encoder

if TYPE_CHECKING:
    from pathlib import Path


def test_a_saved_vit_gives_transformers_own_features(tiny_vit: Path) -> None:
    encoder = load_encoder(str(tiny_vit))
    reference = ViTModel.from_pretrained(tiny_vit, add_pooling_layer=False).eval()
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        expected = reference(pixel_values=(images - 0.5) / 0.5).last_hidden_state[:, 0]
        torch.testing.assert_close(encoder(images), expected)
    assert encoder.width == 32
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_other_sizes_are_resized_inside(tiny_vit: Path) -> None:
    encoder = load_encoder(str(tiny_vit))
    images = torch.rand(2, 3, 40, 24)
    resized = F.interpolate(images, (16, 16), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(encoder(images), encoder(resized))


def test_the_preprocessor_file_decides_the_normalisation(tiny_vit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    shutil.copytree(tiny_vit, folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]})
    )
    encoder = load_encoder(str(folder))
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert backbone_identity(str(folder)) != backbone_identity(str(tiny_vit))


def test_with_state_shares_what_it_is_given_and_leaves_the_original_alone() -> None:
    encoder = tiny_encoder()
    before = {name: tensor.clone() for name, tensor in encoder.state().items()}
    state = {name: torch.ones_like(tensor) for name, tensor in before.items()}
    twin = encoder.with_state(state)
    for name, tensor in twin.state().items():
        assert tensor.data_ptr() == state[name].data_ptr()
        assert torch.equal(encoder.state()[name], before[name])
    with pytest.raises(RuntimeError, match="Missing key"):
        encoder.with_state({})


def test_a_classifier_is_encoder_adapter_head() -> None:
    encoder, images = tiny_encoder(), torch.rand(5, 3, 4, 4)
    head = Head(torch.randn(4, 6), torch.randn(4))
    features = encoder(images)
    torch.testing.assert_close(Classifier(encoder, head)(images), features @ head.weight.T + head.bias)
    doubled = Classifier(encoder, head, adapter=torch.nn.Threshold(0.0, 0.0))
    torch.testing.assert_close(doubled(images), features.clamp(min=0) @ head.weight.T + head.bias)
    torch.testing.assert_close(extract_features(encoder, images, batch_size=2), features)


def test_loading_says_what_is_wrong(tiny_vit: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown backbone 'starter-vitt' \(did you mean 'starter-vit'\?\)"):
        load_encoder("starter-vitt")
    with pytest.raises(UserError, match=r"the folder has no config\.json"):
        load_encoder(str(tmp_path))

    folder = tmp_path / "vit"
    shutil.copytree(tiny_vit, folder)
    weights = load_file(folder / "model.safetensors")
    name = max(weights)
    save_file(weights | {name: torch.full_like(weights[name], float("nan"))}, folder / "model.safetensors")
    with pytest.raises(UserError, match="holds NaN or infinity"):
        load_encoder(str(folder))
    save_file({key: tensor for key, tensor in weights.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(UserError, match="lacks tensor"):
        load_encoder(str(folder))
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_encoder(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(UserError, match="model_type is 'bert'"):
        load_encoder(str(folder))


@pytest.mark.parametrize("bars", [True, False])
def test_loading_leaves_transformers_as_talkative_as_it_was(tiny_vit: Path, bars: bool) -> None:
    verbosity, before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_info()
        logging.enable_progress_bar() if bars else logging.disable_progress_bar()
        load_encoder(str(tiny_vit))
        with suppress(KeyError), quiet_transformers():
            assert logging.get_verbosity() == logging.ERROR
            assert not logging.is_progress_bar_enabled()
            raise KeyError
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled() == bars
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar() if before else logging.disable_progress_bar()


def test_experts_are_checked_against_the_base(tiny_vit: Path, tmp_path: Path) -> None:
    base = load_encoder(str(tiny_vit))
    good = {name: tensor.clone() for name, tensor in base.state().items()}
    name = sorted(good)[-1]

    def saved(file: str, **changes: torch.Tensor | None) -> Path:
        content = {key: tensor for key, tensor in (good | changes).items() if tensor is not None}
        save_file(content, tmp_path / file)
        return tmp_path / file

    assert load_expert(base, saved("good.safetensors")).state().keys() == good.keys()
    assert load_expert(base, tiny_vit).state().keys() == good.keys()
    beside = {"classifier.weight": torch.zeros(3, 32), "embeddings.position_ids": torch.arange(17)}
    assert load_expert(base, saved("whole.safetensors", **beside)).state().keys() == good.keys()
    half = {key: tensor.half() for key, tensor in good.items()}
    assert load_expert(base, saved("half.safetensors", **half)).state()[name].dtype == torch.float32
    cases = {
        "is missing": {name: None},
        "is not in the base": {"layers.2.stranger": torch.zeros(1)},
        "has shape": {name: torch.zeros(3, 5)},
        "holds NaN": {name: torch.full_like(good[name], float("nan"))},
        "is int64": {name: torch.zeros(good[name].shape, dtype=torch.int64)},
    }
    for message, change in cases.items():
        with pytest.raises(UserError, match=message):
            load_expert(base, saved("bad.safetensors", **change))
    (tmp_path / "model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="pickle"):
        load_expert(base, tmp_path / "model.bin")
    with pytest.raises(UserError, match="no such file"):
        load_expert(base, tmp_path / "nowhere.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:100])
    with pytest.raises(UserError, match=r"torn\.safetensors"):
        load_expert(base, tmp_path / "torn.safetensors")


def test_another_image_size_keeps_the_pretrained_weights(tiny_vit: Path) -> None:
    usual, larger = load_encoder(str(tiny_vit)), load_encoder(str(tiny_vit), image_size=24)
    images = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert {n: t.shape for n, t in larger.state().items()} == {n: t.shape for n, t in usual.state().items()}
    assert larger.image_size == 24
    assert larger(images).shape == (2, 32)
    # The usual one resizes the image instead.
    assert not torch.allclose(larger(images), usual(images))
    with pytest.raises(UserError, match="no multiple of its patches' 4 pixels"):
        load_encoder(str(tiny_vit), image_size=18)
