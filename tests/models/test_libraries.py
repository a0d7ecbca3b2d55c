"""Encoders and heads of timm and OpenCLIP, against the two libraries themselves, on small models of theirs."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.models import Classifier, backbone_identity, load_encoder, load_expert, text_identity
from mergerisk.models.sources.loading import has_batch_norm
from tests.models.material import drawn, images
from tests.models.other_libraries import fetched, other_libraries

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["fetched", "other_libraries"]

theirs = [pytest.mark.pypi, pytest.mark.usefixtures("other_libraries")]
"""Tests that run the two libraries."""

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
SIDE = 32


def normalised(pixels: torch.Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> torch.Tensor:
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("test_vit", {"img_size": SIDE, "patch_size": 8}),
    "resnet": ("test_resnet", {}),
    "efficientnet": ("test_efficientnet", {}),
    "convnext": ("test_convnext", {}),
    "beit": ("beit_base_patch16_224", {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}),
    "distilled": ("deit_tiny_distilled_patch16_224", {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 1,
                                                      "num_heads": 2}),
}  # fmt: skip
"""Short name → architecture of timm, and arguments that make it small."""


def save_timm(folder: Path, name: str, seed: int = 0, classes: int = 3) -> str:
    """A model as timm saves it for the hub; what mergerisk calls it."""
    timm = sys.modules["timm"]
    architecture, arguments = TIMM[name]
    model = drawn(timm.create_model(architecture, num_classes=classes, **arguments), seed, 0.05)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    about = {"mean": MEAN, "std": STD, "input_size": [3, SIDE, SIDE], "num_classes": classes}
    about |= {"classifier": model.pretrained_cfg["classifier"], "fixed_input_size": "img_size" in arguments}
    content = {
        "architecture": architecture,
        "num_classes": classes,
        "model_args": arguments,
        "pretrained_cfg": about,
    }
    (folder / "config.json").write_text(json.dumps(content))
    return f"timm:local-dir:{folder}"


def timm_reference(name: str, **options: Any) -> nn.Module:
    made: nn.Module = (
        sys.modules["timm"].create_model(name.removeprefix("timm:"), pretrained=True, **options).eval()
    )
    return made


class TestTimm:
    pytestmark = theirs

    @pytest.mark.parametrize("name", [name for name in TIMM if name != "distilled"])
    def test_encoder_and_head_are_the_models_own_classifier(self, name: str, tmp_path: Path) -> None:
        spec = save_timm(tmp_path / name, name)
        encoder = load_encoder(spec)
        head, class_names = mr.checkpoint_head(spec)
        assert (encoder.image_size, class_names) == (SIDE, None)
        reference = timm_reference(spec)
        with torch.no_grad():
            expected = reference(normalised(images(SIDE)))
        torch.testing.assert_close(Classifier(encoder, head)(images(SIDE)), expected)
        assert has_batch_norm(spec) == any(isinstance(m, nn.BatchNorm2d) for m in reference.modules())

    def test_two_heads_are_none(self, tmp_path: Path) -> None:
        spec = save_timm(tmp_path / "distilled", "distilled")
        with pytest.raises(UserError, match=r"has no single linear classifier.*heads: \{from: files\}"):
            mr.checkpoint_head(spec)

    def test_experts_bring_their_heads_under_timms_names(self, tmp_path: Path) -> None:
        base = save_timm(tmp_path / "base", "resnet")
        tuned = save_timm(tmp_path / "tuned", "resnet", seed=1, classes=5)
        file = tmp_path / "tuned" / "model.safetensors"
        encoder = load_encoder(base)
        for spec in (file, tmp_path / "tuned"):
            expert = load_expert(encoder, spec)
            head, _ = mr.checkpoint_head(str(spec), backbone=base)
            with torch.no_grad():
                expected = timm_reference(tuned)(normalised(images(SIDE)))
            torch.testing.assert_close(Classifier(expert, head)(images(SIDE)), expected)
        bare = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("fc.")}
        save_file(bare, tmp_path / "bare.safetensors")
        with pytest.raises(UserError, match=r"has no classifier of timm:.* no 'fc.weight'"):
            mr.checkpoint_head(str(tmp_path / "bare.safetensors"), backbone=base)

    def test_other_sizes(self, tmp_path: Path) -> None:
        convolutional = save_timm(tmp_path / "resnet", "resnet")
        with torch.no_grad():
            expected = timm_reference(convolutional, num_classes=0)(normalised(images(48)))
        torch.testing.assert_close(load_encoder(convolutional, image_size=48)(images(48)), expected)
        patches = save_timm(tmp_path / "vit", "vit")
        larger = load_encoder(patches, image_size=48)
        with torch.no_grad():
            expected = timm_reference(patches, num_classes=0, dynamic_img_size=True)(normalised(images(48)))
        torch.testing.assert_close(larger(images(48)), expected)
        assert larger.state().keys() == load_encoder(patches).state().keys()

    def test_a_model_of_the_hub_by_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        timm = sys.modules["timm"]
        model = drawn(timm.create_model("test_resnet.r160_in1k"), 0, 0.05)
        repository, commit = tmp_path / "models--timm--test_resnet.r160_in1k", "a" * 40
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        save_file(model.state_dict(), snapshot / "model.safetensors", metadata={"format": "pt"})
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        encoder, side = load_encoder("timm:test_resnet.r160_in1k"), model.pretrained_cfg["input_size"][1]
        assert encoder.image_size == side
        pixels = normalised(images(side), model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
        head, _ = mr.checkpoint_head("timm:test_resnet.r160_in1k")
        with torch.no_grad():
            torch.testing.assert_close(Classifier(encoder, head)(images(side)), model(pixels))

    def test_the_identity_is_name_version_and_weights(self, tmp_path: Path) -> None:
        one, two = (save_timm(tmp_path / str(seed), "resnet", seed) for seed in (0, 1))
        first, second = backbone_identity(one), backbone_identity(two)
        assert first == backbone_identity(one)
        assert first["backbone"] == one
        assert first["timm"] == sys.modules["timm"].__version__
        assert first["weights"] != second["weights"]
        assert mr.models.head_identity(one)["weights"] not in {first["weights"], second["weights"]}

    def test_what_timm_does_not_have(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rigid = save_timm(tmp_path / "beit", "beit")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        for message, call in {
            r"timm:other: cannot be loaded: Unknown model": lambda: load_encoder("timm:other"),
            r"image_size 48: cannot be loaded: .*dynamic_img_size": lambda: load_encoder(rigid, image_size=48),
            "set HF_HUB_OFFLINE=1": lambda: load_encoder(rigid, offline=True),
        }.items():
            with pytest.raises(UserError, match=message) as raised:
                call()
            assert "\n" not in str(raised.value)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert load_encoder(rigid, offline=True).width == 32


_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
_VIT = {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
OPEN_CLIP: dict[str, dict[str, Any]] = {
    "laion": {"vision_cfg": _VIT},
    "openai": {"vision_cfg": _VIT, "quick_gelu": True},
    "datacomp": {"vision_cfg": _VIT | {"patch_size": 16, "image_size": 64}},
    "resnet": {"vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}},
    "eva": {
        "vision_cfg": {"image_size": SIDE, "timm_model_name": "eva_of_these_tests", "timm_pool": "token", "timm_proj": None},
        "custom_text": True,
    },
    "siglip": {
        "vision_cfg": {"image_size": SIDE, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
        "text_cfg": _TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        "custom_text": True,
        "init_logit_bias": -10,
    },
}  # fmt: skip
"""Whose CLIP → a small configuration of its kind."""


def _register_eva() -> None:
    """EVA's image tower at a size that tests can afford, as timm registers its own."""
    from timm.models import is_model, register_model
    from timm.models.eva import _create_eva

    if is_model("eva_of_these_tests"):
        return

    def eva_of_these_tests(pretrained: bool = False, **named: Any) -> nn.Module:
        size = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
        kind = {
            "qkv_fused": False,
            "mlp_ratio": 8 / 3,
            "swiglu_mlp": True,
            "scale_mlp": True,
            "use_rot_pos_emb": True,
        }
        place = {"ref_feat_shape": (4, 4), "global_pool": "token"}
        made: nn.Module = _create_eva(
            "eva02_tiny_patch14_224", pretrained=pretrained, **size | kind | place | named
        )
        return made

    eva_of_these_tests.__module__ = "timm.models.eva"
    register_model(eva_of_these_tests)


def save_open_clip(folder: Path, kind: str, seed: int = 0) -> str:
    """A pair of towers as OpenCLIP saves it for the hub; what mergerisk calls it."""
    open_clip = sys.modules["open_clip"]
    if kind == "eva":
        _register_eva()
    settings = {"embed_dim": 32 if kind in {"eva", "siglip"} else 24, "text_cfg": _TEXT} | OPEN_CLIP[kind]
    content = {"model_cfg": settings, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    model = drawn(open_clip.create_model(f"local-dir:{folder}"), seed, 0.05)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


class TestOpenClip:
    pytestmark = theirs

    @pytest.mark.parametrize("kind", OPEN_CLIP)
    def test_zero_shot_logits_are_the_models_own(self, kind: str, tmp_path: Path) -> None:
        open_clip = sys.modules["open_clip"]
        spec = save_open_clip(tmp_path / kind, kind)
        encoder = load_encoder(spec)
        names, templates = ["cat", "dog of a cat", "photo 42"], ["a photo of a {}.", "{}"]
        head = mr.zero_shot(spec, names, templates[:1])
        model = open_clip.create_model(spec.removeprefix("open_clip:")).eval()
        tokens = open_clip.get_tokenizer(spec.removeprefix("open_clip:"))
        pixels = images(encoder.image_size)
        with torch.no_grad():
            seen = model.encode_image(normalised(pixels))
            torch.testing.assert_close(encoder(pixels), seen)
            expected, _ = model.get_logits(normalised(pixels), tokens([f"a photo of a {name}." for name in names]))
        bias = 0.0 if model.logit_bias is None else float(model.logit_bias.detach())
        torch.testing.assert_close(Classifier(encoder, head)(pixels), expected - bias, rtol=1e-5, atol=1e-4)
        # Several prompts: a class's direction is the mean of theirs, as the library's own function takes it.
        expected = open_clip.build_zero_shot_classifier(
            model, tokens, names, [lambda name, t=t: t.format(name) for t in templates], num_classes_per_batch=None
        )
        several = mr.zero_shot(spec, [name.replace(" ", "_") for name in names], templates)
        scale = float(model.logit_scale.detach().exp())
        torch.testing.assert_close(several.weight / scale, expected.T, rtol=1e-5, atol=1e-6)
        assert has_batch_norm(spec) == (kind == "resnet")

    def test_names_of_models_and_of_weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pretrained = importlib.import_module("open_clip.pretrained")
        factory = importlib.import_module("open_clip.factory")
        spec = save_open_clip(tmp_path / "laion", "laion")
        settings = json.loads((tmp_path / "laion" / "open_clip_config.json").read_text())["model_cfg"]
        weights = {"file": str(tmp_path / "laion" / "open_clip_model.safetensors"), "mean": MEAN, "std": STD}
        tags = {"laion2b": weights, "quick": weights | {"quick_gelu": True}}
        monkeypatch.setitem(factory._MODEL_CONFIGS, "Tiny", settings)
        monkeypatch.setitem(factory._MODEL_CONFIGS, "Tiny-quickgelu", settings | {"quick_gelu": True})
        monkeypatch.setitem(factory._MODEL_CONFIGS, "Lone", settings)
        for name, known in {"Tiny": tags, "Tiny-quickgelu": tags, "Lone": {"laion2b": weights}}.items():
            monkeypatch.setitem(pretrained._PRETRAINED, name, known)
        expected = load_encoder(spec)(images(SIDE))
        assert torch.equal(load_encoder("open_clip:Tiny/laion2b")(images(SIDE)), expected)
        assert torch.equal(load_encoder("open_clip:Lone")(images(SIDE)), expected)
        assert not torch.allclose(load_encoder("open_clip:Tiny-quickgelu/quick")(images(SIDE)), expected)
        for name, size, message in (
            ("Tiny/quick", None, "another activation than this model's; give open_clip:Tiny-quickgelu/quick"),
            ("Tiny-quickgelu/laion2b", None, "another activation than this model's; give open_clip:Tiny/laion2b"),
            ("Tiny", None, "name one of its weights, open_clip:Tiny/WEIGHTS: laion2b, quick"),
            ("Tiny/laion", None, "name one of its weights"),
            ("Tinny", None, r"no pretrained model 'Tinny' \(did you mean 'Tiny'\?\)"),
            ("Lone", 48, "take their own 32 only"),
        ):
            with pytest.raises(UserError, match=message) as raised:
                load_encoder(f"open_clip:{name}", image_size=size)
            assert "\n" not in str(raised.value)

    def test_weights_that_are_not_found_are_never_drawn(self, tmp_path: Path) -> None:
        spec = save_open_clip(tmp_path / "laion", "laion")
        (tmp_path / "laion" / "open_clip_model.safetensors").unlink()
        with pytest.raises(UserError, match="cannot be loaded: Required pretrained weights"):
            load_encoder(spec)

    def test_identities_and_heads(self, tmp_path: Path) -> None:
        spec = save_open_clip(tmp_path / "laion", "laion")
        before = text_identity(spec)
        assert before["open_clip_torch"] == sys.modules["open_clip"].__version__
        stored = load_file(tmp_path / "laion" / "open_clip_model.safetensors")
        stored["text_projection"] += 1
        save_file(stored, tmp_path / "laion" / "open_clip_model.safetensors")
        assert text_identity(spec) != before
        with pytest.raises(UserError, match="brings no such head"):
            mr.checkpoint_head(spec)


@pytest.mark.parametrize(("library", "extra"), [("timm", "timm"), ("open_clip", "open-clip")])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (ModuleNotFoundError("No module named 'timm'"), "No module named"),
        (
            RuntimeError("operator torchvision::nms does not exist\nin a stack"),
            "torchvision that matches the installed torch",
        ),
    ],
)
def test_a_library_that_cannot_be_imported(
    library: str, extra: str, fault: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = importlib.import_module

    def fail(name: str, *rest: Any) -> Any:
        if name == library:
            raise fault
        return original(name, *rest)

    monkeypatch.setattr("mergerisk.models.sources.libraries.importlib.import_module", fail)
    with pytest.raises(UserError, match=message) as raised:
        load_encoder(f"{library}:resnet18")
    assert f"pip install 'mergerisk[{extra}]'" in str(raised.value)
    assert type(fault).__name__ in str(raised.value)
    assert "\n" not in str(raised.value)
