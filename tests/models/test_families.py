"""Encoders and heads of every family, against transformers' own models."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.models import Classifier, Encoder, Head, load_encoder
from mergerisk.models.sources.families import FAMILIES
from tests.models.material import (
    CLASSES,
    CLASSIFIERS,
    MEAN,
    STD,
    classifier,
    drawn,
    images,
    save_bare,
    save_classifier,
    save_clip,
    scaled,
    write_preprocessor,
)

if TYPE_CHECKING:
    from pathlib import Path

BARE = ["siglip_vision_model", "vit_mae"]
EVERY = ["clip", "clip_vision_model", *BARE, *CLASSIFIERS]
WITH_STATISTICS = ("resnet", "regnet", "efficientnet", "mobilenet_v2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per family; the bare CLIP tower and the whole CLIP hold the same weights."""
    root = tmp_path_factory.mktemp("families")
    found = {family: save_classifier(root / family, family) for family in CLASSIFIERS}
    found |= {family: save_bare(root / family, family) for family in BARE}
    found["clip"] = save_clip(root / "clip")
    found["clip_vision_model"] = root / "tower"
    transformers.CLIPVisionModel.from_pretrained(found["clip"]).save_pretrained(root / "tower")
    write_preprocessor(root / "tower")
    return found


def expert_of(base: Encoder, seed: int) -> Encoder:
    """The base with all its parameters moved a little."""
    twin = base.with_state({name: tensor.clone() for name, tensor in base.state().items()})
    drawn(twin.backbone, seed, width=0.02)
    return twin


def test_there_is_a_model_of_every_family() -> None:
    assert set(EVERY) == set(FAMILIES)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_encoder_and_head_are_the_checkpoints_own_classifier(family: str, folders: dict[str, Path]) -> None:
    name = str(folders[family])
    encoder = load_encoder(name)
    head, class_names = mr.checkpoint_head(name)
    assert class_names == CLASSES
    assert head.weight.shape == (3, encoder.width)
    with torch.no_grad():
        expected = classifier(folders[family], family)(pixel_values=scaled(images())).logits
    torch.testing.assert_close(Classifier(encoder, head)(images()), expected)
    # Images of other sizes are resized into it.
    assert Classifier(encoder, head)(images(47)).shape == (3, 3)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_other_image_sizes_keep_the_pretrained_weights(family: str, folders: dict[str, Path]) -> None:
    usual, larger = load_encoder(str(folders[family])), load_encoder(str(folders[family]), image_size=48)
    head, _ = mr.checkpoint_head(str(folders[family]))
    assert larger.image_size == 48
    for name, tensor in usual.state().items():
        assert torch.equal(larger.state()[name], tensor)
    argument = {"interpolate_pos_encoding": True} if family in {"vit", "deit", "siglip"} else {}
    with torch.no_grad():
        expected = classifier(folders[family], family)(pixel_values=scaled(images(48)), **argument).logits
    torch.testing.assert_close(Classifier(larger, head)(images(48)), expected)


@pytest.mark.parametrize("side", [32, 48])
def test_a_whole_clip_gives_its_image_embedding(side: int, folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders["clip"]), image_size=side)
    reference = transformers.CLIPModel.from_pretrained(folders["clip"]).eval()
    with torch.no_grad():
        expected = reference.get_image_features(scaled(images(side)), interpolate_pos_encoding=side != 32)
    torch.testing.assert_close(encoder(images(side)), expected.pooler_output)
    assert encoder.width == 16
    # What is merged is the tower alone, under the names it has by itself.
    assert encoder.state().keys() == load_encoder(str(folders["clip_vision_model"])).state().keys()
    assert not any("projection" in name for name in encoder.state())


def test_a_bare_tower_gives_its_class_token(folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders["clip_vision_model"]))
    reference = transformers.CLIPVisionModel.from_pretrained(folders["clip_vision_model"]).eval()
    with torch.no_grad():
        expected = reference(pixel_values=scaled(images())).pooler_output
    torch.testing.assert_close(encoder(images()), expected)
    assert encoder.width == 32


def test_a_tower_with_its_projection_gives_the_embedding(folders: dict[str, Path], tmp_path: Path) -> None:
    transformers.CLIPVisionModelWithProjection.from_pretrained(folders["clip"]).save_pretrained(tmp_path)
    write_preprocessor(tmp_path)
    torch.testing.assert_close(load_encoder(str(tmp_path))(images()), load_encoder(str(folders["clip"]))(images()))


def test_the_projection_is_frozen_and_shared(folders: dict[str, Path]) -> None:
    base = load_encoder(str(folders["clip"]))
    twin = base.with_state({name: tensor.clone() for name, tensor in base.state().items()})
    features: Any = base.features
    assert twin.features.projection.data_ptr() == features.projection.data_ptr()
    assert twin.features is not base.features
    assert not any(parameter is features.projection for parameter in twin.requires_grad_(True).parameters())
    # Where one goes, the other does not follow.
    twin.double()
    assert twin.features.projection.dtype == torch.float64
    assert features.projection.dtype == torch.float32
    torch.testing.assert_close(twin(images().double()).float(), base(images()))
    assert base.to("meta").features.projection.is_meta


def test_other_features_on_the_same_backbone_keep_the_projection(folders: dict[str, Path]) -> None:
    base = load_encoder(str(folders["clip"]))
    doubled = base.with_features(lambda backbone, pixels: 2 * base.features(backbone, pixels))
    torch.testing.assert_close(doubled(images()), 2 * base(images()))


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALVES = ((0.5,) * 3, (0.5,) * 3)
PUBLISHED = {
    "clip": OPENAI,
    "clip_vision_model": OPENAI,
    "efficientnet": (IMAGENET[0], tuple(std**2 for std in (0.47853944, 0.4732864, 0.47434163))),
    **dict.fromkeys(("beit", "mobilenet_v2", "siglip", "siglip_vision_model", "vit"), HALVES),
}
"""What the preprocessors of the published checkpoints say; the others were trained with ImageNet's own."""


@pytest.mark.parametrize("family", EVERY)
def test_pixels_are_prepared_as_the_family_does_where_nothing_says(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(folders[family], folder)
    (folder / "preprocessor_config.json").unlink()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in PUBLISHED.get(family, IMAGENET))
    prepared = load_encoder(str(folder), image_size=32).prepare(images())
    torch.testing.assert_close(prepared, (images() - mean) / std)


def test_unusual_scales_are_taken_into_account(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(folders["vit"], folder)
    write_preprocessor(folder, rescale_factor=1 / 127.5, image_mean=[1, 1, 1], image_std=[1, 1, 1])
    prepared = load_encoder(str(folder)).prepare(images())
    torch.testing.assert_close(prepared, 2 * images() - 1)
    write_preprocessor(folder, do_normalize=False)
    torch.testing.assert_close(load_encoder(str(folder)).prepare(images()), images())
    write_preprocessor(folder, do_flip_channel_order=True)
    with pytest.raises(UserError, match="do_flip_channel_order is not supported"):
        load_encoder(str(folder))


def test_a_family_of_any_size_starts_at_the_size_it_was_used_with(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "dinov2"
    shutil.copytree(folders["dinov2"], folder)
    write_preprocessor(
        folder, size={"shortest_edge": 64}, do_center_crop=True, crop_size={"height": 40, "width": 40}
    )
    assert load_encoder(str(folder)).image_size == 40
    folder = tmp_path / "resnet"
    shutil.copytree(folders["resnet"], folder)
    write_preprocessor(folder, size={"shortest_edge": 56}, crop_pct=0.875)
    assert load_encoder(str(folder)).image_size == 56
    (folder / "preprocessor_config.json").unlink()
    assert load_encoder(str(folder)).image_size == 224


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        ("clip", 36, "no multiple of its patches' 8 pixels"),
        ("dinov2", 36, "no multiple of its patches' 8 pixels"),
        ("vit", 0, "image_size 0 is no multiple"),
        ("vit", -8, "image_size -8 is no multiple"),
        ("resnet", 31, "below 32"),
        ("convnext", 16, "below 32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(family: str, size: int, message: str, folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_encoder(str(folders[family]), image_size=size)
    assert "\n" not in str(raised.value)


def test_convolutions_need_no_multiple_of_their_stride(folders: dict[str, Path]) -> None:
    for family in ("resnet", "convnext"):
        encoder = load_encoder(str(folders[family]), image_size=37)
        assert encoder(images(37)).shape == (3, 16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["clip", "resnet", "dinov2"])
def test_half_precision_is_loaded_as_float32(
    family: str, dtype: torch.dtype, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(folders[family], folder)
    whole = load_file(folder / "model.safetensors")
    halved = {name: t.to(dtype) if t.is_floating_point() else t for name, t in whole.items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    encoder, expected = load_encoder(str(folder)), load_encoder(str(folders[family]))
    for name, tensor in encoder.state().items():
        assert tensor.dtype == expected.state()[name].dtype
        assert torch.equal(tensor, expected.state()[name].to(dtype).to(tensor.dtype))
    assert encoder(images()).dtype == torch.float32


def test_sharded_checkpoints_are_the_same_model(folders: dict[str, Path], tmp_path: Path) -> None:
    transformers.CLIPModel.from_pretrained(folders["clip"]).save_pretrained(tmp_path, max_shard_size="20KB")
    write_preprocessor(tmp_path)
    shards = sorted(path.name for path in tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    torch.testing.assert_close(load_encoder(str(tmp_path))(images()), load_encoder(str(folders["clip"]))(images()))
    identity = mr.models.backbone_identity(str(tmp_path))
    assert {*shards, "model.safetensors.index.json", "config.json"} <= identity.keys()
    (tmp_path / shards[0]).unlink()
    with pytest.raises(UserError, match=f"{shards[0]}: missing"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("family", EVERY)
def test_every_family_merges(family: str, folders: dict[str, Path]) -> None:
    base = load_encoder(str(folders[family]))
    experts = {"one": expert_of(base, 1), "two": expert_of(base, 2)}
    draws = torch.Generator().manual_seed(0)
    head = Head(torch.randn(3, base.width, generator=draws), torch.zeros(3))
    calibration = {task: mr.merging.Calibration(images(count=16, seed=5), head) for task in experts}
    for method in ("weight_averaging", "ties", "task_arithmetic"):
        merged = mr.merging.create(method).merge(base, experts, calibration=calibration, seed=0)
        features = merged.encoder(images())
        assert features.shape == (3, base.width)
        assert bool(torch.isfinite(features).all())
        assert not torch.allclose(features, base(images()))
    averaged = mr.merging.create("weight_averaging").merge(base, experts, calibration=calibration, seed=0)
    for name, tensor in averaged.encoder.state().items():
        mean = (experts["one"].state()[name] + experts["two"].state()[name]) / 2
        if family in WITH_STATISTICS and ".running_" in name:  # seen on images anew
            assert not torch.allclose(tensor, mean)
        elif tensor.is_floating_point():
            torch.testing.assert_close(tensor, mean)


@pytest.mark.parametrize("family", EVERY)
def test_gradients_reach_the_pixels(family: str, folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders[family]))
    weight = torch.randn(3, encoder.width, generator=torch.Generator().manual_seed(0))
    model = Classifier(encoder, Head(weight, torch.zeros(3), normalize=True))
    adversarial = mr.attacks.create("mi_fgsm", steps=4)(
        model, images(), torch.tensor([0, 1, 2]), epsilon=8 / 255, seed=0
    )
    change = (adversarial - images()).abs()
    assert float(change.max()) == pytest.approx(8 / 255, rel=1e-4)
    assert bool((change.amax(dim=(1, 2, 3)) > 7 / 255).all())


@pytest.mark.parametrize("attack", ["pna_patchout", "tgr"])
@pytest.mark.parametrize("family", ["clip", "dinov2"])
def test_attacks_on_transformers_reach_inside(attack: str, family: str, folders: dict[str, Path]) -> None:
    encoder = load_encoder(str(folders[family]))
    weight = torch.randn(3, encoder.width, generator=torch.Generator().manual_seed(0))
    model = Classifier(encoder, Head(weight, torch.zeros(3), normalize=True))
    labels = torch.tensor([0, 1, 2])
    inside = mr.attacks.create(attack, steps=2)(model, images(), labels, epsilon=8 / 255, seed=0)
    outside = mr.attacks.create("mi_fgsm", steps=2)(model, images(), labels, epsilon=8 / 255, seed=0)
    assert not torch.equal(inside, outside)
    assert bool(((inside - images()).abs().amax(dim=(1, 2, 3)) > 0).all())


def test_siglips_tower_gives_its_image_embedding(folders: dict[str, Path]) -> None:
    reference = transformers.SiglipVisionModel.from_pretrained(folders["siglip_vision_model"]).eval()
    for side in (32, 48):
        encoder = load_encoder(str(folders["siglip_vision_model"]), image_size=side)
        with torch.no_grad():
            expected = reference(scaled(images(side)), interpolate_pos_encoding=side != 32).pooler_output
        torch.testing.assert_close(encoder(images(side)), expected)


def test_a_masked_autoencoder_sees_every_patch_and_draws_nothing(folders: dict[str, Path]) -> None:
    """Its own weights in a plain ViT, which has the same blocks and no masks."""
    encoder = load_encoder(str(folders["vit_mae"]))
    whole = transformers.ViTMAEModel.from_pretrained(folders["vit_mae"])
    shared = {name: whole.config.to_dict()[name] for name in transformers.ViTConfig().to_dict() if name != "model_type"
              and name in whole.config.to_dict()}  # fmt: skip
    reference = transformers.ViTModel(transformers.ViTConfig(**shared), add_pooling_layer=False).eval()
    reference.load_state_dict(whole.state_dict())
    with torch.no_grad():
        expected = reference(pixel_values=scaled(images())).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(images()), expected)
    before = torch.random.get_rng_state()
    assert torch.equal(encoder(images()), encoder(images()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_efficientnets_processor_divides_twice(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

    folder = tmp_path / "efficientnet"
    shutil.copytree(folders["efficientnet"], folder)
    pixels = (images(32, 1) * 255).round() / 255
    for top in (True, False):
        processor = EfficientNetImageProcessorPil(
            size={"height": 32, "width": 32}, do_center_crop=False, image_mean=MEAN, image_std=STD, include_top=top
        )
        processor.save_pretrained(folder)
        expected = processor((pixels[0] * 255).byte(), return_tensors="pt", do_resize=False).pixel_values
        torch.testing.assert_close(load_encoder(str(folder)).prepare(pixels), expected)


def test_windows_that_do_not_fit_an_image_are_said_in_one_line(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="image_size 8: fails on such an image") as raised:
        load_encoder(str(folders["swin"]), image_size=8)
    assert "\n" not in str(raised.value)


def altered(folders: dict[str, Path], to: Path, family: str = "vit", **config: Any) -> Path:
    shutil.copytree(folders[family], to)
    content = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(content | config))
    return to


def test_what_is_no_backbone_is_refused_in_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    nan = altered(folders, tmp_path / "nan", "clip")
    whole = load_file(nan / "model.safetensors")
    whole["visual_projection.weight"][0, 0] = torch.nan
    save_file(whole, nan / "model.safetensors", metadata={"format": "pt"})
    cut = altered(folders, tmp_path / "cut")
    content = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(content[: len(content) // 2])
    pickled = altered(folders, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    file = folders["vit"] / "model.safetensors"
    cases = {
        str(
            altered(folders, tmp_path / "kind", model_type="bert")
        ): "model_type is 'bert'; supported here: 'beit'",
        str(altered(folders, tmp_path / "list", model_type=["vit"])): "model_type is",
        str(altered(folders, tmp_path / "deep", num_hidden_layers=3)): "lacks tensor",
        str(altered(folders, tmp_path / "wide", hidden_size=48)): "has shape .*, but config.json makes it .*48",
        str(save_classifier(tmp_path / "oblong", "vit", image_size=(32, 64))): "32 × 64 pixels; square ones",
        str(nan): "'visual_projection.weight' holds NaN",
        str(cut): "cut short",
        str(pickled): "pickled weights are not read",
        str(file): "a file; give the folder",
        str(tmp_path / "no" / "such"): "no such file or folder",
        "nowhere": "unknown backbone 'nowhere'",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as raised:
            load_encoder(name)
        assert "\n" not in str(raised.value)


def test_heads_that_a_checkpoint_does_not_have(folders: dict[str, Path], tmp_path: Path, tiny_vit: Path) -> None:
    named = altered(folders, tmp_path / "unnamed", id2label={"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"})
    assert mr.checkpoint_head(str(named))[1] is None
    assert mr.checkpoint_head(str(altered(folders, tmp_path / "none", id2label=None)))[1] is None
    distilled = tmp_path / "distilled"
    transformers.DeiTForImageClassificationWithTeacher.from_pretrained(folders["deit"]).save_pretrained(distilled)
    cases = {
        str(folders["clip"]): "no classification head of its own; make a zero-shot head",
        str(folders["vit_mae"]): "a vit_mae has no classification head",
        str(tiny_vit): "has no 'classifier.weight'",
        str(distilled): "has no 'classifier.weight'",
        "starter-vit": "has no 'classifier.weight'",
        "open_clip:ViT-B-32/openai": r"brings no such head.*heads: \{from: files\}",
        "tests.models.factory_modules:small": "brings no such head",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            mr.checkpoint_head(name)
