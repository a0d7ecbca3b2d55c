"""timm and OpenCLIP, by stand-ins that answer as they do: neither can be installed beside every PyTorch."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from mergerisk.errors import UserError
from mergerisk.models import backbone_identity, load_encoder
from tests.models.material import images

if TYPE_CHECKING:
    from collections.abc import Sequence

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


class Tower(nn.Module):
    """A linear map of the channels' means: takes any size, as timm's dynamic models do."""

    seed = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        draws = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draws))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(pixels.mean(dim=(2, 3)))
        return out


class Fixed(Tower):
    """Refuses all images but its own size."""

    side = 16

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.shape[-1] == self.side
        return super().forward(pixels)


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    calls: list[tuple[str, dict[str, Any]]] = []

    def create_model(name: str, **named: Any) -> nn.Module:
        calls.append((name, named))
        if name not in {"vit", "vit_rigid", "resnet"}:
            raise RuntimeError(f"Unknown model ({name})")
        if name == "vit_rigid" and "dynamic_img_size" in named:
            raise TypeError("unexpected keyword argument 'dynamic_img_size'\nand more")
        made: Any = Fixed() if name.startswith("vit") and not named.get("dynamic_img_size") else Tower()
        made.pretrained_cfg = {
            "input_size": (3, 16, 16),
            "fixed_input_size": name.startswith("vit"),
            "mean": MEAN,
            "std": STD,
        }
        return made

    module = ModuleType("timm")
    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)
    return calls


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def test_a_model_of_timm_is_prepared_as_it_says(timm: list[tuple[str, dict[str, Any]]]) -> None:
    encoder = load_encoder("timm:resnet")
    assert timm == [("resnet", {"pretrained": True, "num_classes": 0})]
    assert (encoder.image_size, encoder.width) == (16, 4)
    torch.testing.assert_close(encoder(images(16)), Tower()(normalised(images(16))))


def test_other_sizes_of_timm(timm: list[tuple[str, dict[str, Any]]]) -> None:
    assert load_encoder("timm:resnet", image_size=24).image_size == 24
    assert not any("dynamic_img_size" in named for _, named in timm)
    assert load_encoder("timm:vit").image_size == 16
    assert load_encoder("timm:vit", image_size=24)(images(24)).shape == (3, 4)
    assert timm[-1][1]["dynamic_img_size"] is True
    with pytest.raises(
        UserError, match=r"timm:vit_rigid: image_size 24: cannot be loaded: .*dynamic_img_size"
    ) as raised:
        load_encoder("timm:vit_rigid", image_size=24)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("timm")
def test_unknown_models_of_timm() -> None:
    with pytest.raises(UserError, match=r"timm:other: cannot be loaded: Unknown model"):
        load_encoder("timm:other")


@pytest.mark.usefixtures("timm")
def test_offline_needs_the_librarys_own_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(UserError, match="set HF_HUB_OFFLINE=1"):
        load_encoder("timm:resnet", offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_encoder("timm:resnet", offline=True).width == 4


@pytest.mark.usefixtures("timm")
def test_the_identity_is_name_version_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    first = backbone_identity("timm:resnet")
    assert first == backbone_identity("timm:resnet")
    assert first["backbone"] == "timm:resnet"
    assert first["timm"] == "unknown"  # a stand-in has no distribution
    assert len(first["weights"]) == 64
    monkeypatch.setattr(Tower, "seed", 1)
    assert backbone_identity("timm:resnet")["weights"] != first["weights"]


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    calls: list[tuple[str, str | None]] = []
    tags = {"ViT-B-32": ["openai", "laion2b"], "RN50": ["yfcc15m"]}

    def create_model(name: str, pretrained: str | None = None) -> Any:
        calls.append((name, pretrained))
        tower: Any = Tower()
        tower.image_size = 16 if name == "RN50" else (16, 16)
        tower.image_mean, tower.image_std = MEAN, STD
        return SimpleNamespace(visual=tower)

    def list_tags(name: str) -> Sequence[str]:
        return tags.get(name, [])

    module = ModuleType("open_clip")
    module.create_model = create_model
    module.list_pretrained_tags_by_model = list_tags
    module.list_models = lambda: list(tags)
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return calls


def test_an_image_tower_of_openclip(open_clip: list[tuple[str, str | None]]) -> None:
    encoder = load_encoder("open_clip:ViT-B-32/laion2b")
    torch.testing.assert_close(encoder(images(16)), Tower()(normalised(images(16))))
    assert load_encoder("open_clip:RN50").image_size == 16
    load_encoder("open_clip:hf-hub:org/name")
    assert open_clip == [("ViT-B-32", "laion2b"), ("RN50", "yfcc15m"), ("hf-hub:org/name", None)]
    assert backbone_identity("open_clip:RN50")["backbone"] == "open_clip:RN50"


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("ViT-B-32", None, "name one of its weights, open_clip:ViT-B-32/WEIGHTS: openai, laion2b"),
        ("ViT-B-32/laion", None, "name one of its weights"),
        ("ViT-B-23", None, r"no pretrained model 'ViT-B-23' \(did you mean 'ViT-B-32'\?\)"),
        ("RN50", 24, "take their own 16 only"),
    ],
)
def test_what_openclip_does_not_have(
    name: str, size: int | None, message: str, open_clip: list[tuple[str, str | None]]
) -> None:
    with pytest.raises(UserError, match=message):
        load_encoder(f"open_clip:{name}", image_size=size)
    assert len(open_clip) <= 1


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

    monkeypatch.setattr("mergerisk.models.libraries.importlib.import_module", fail)
    with pytest.raises(UserError, match=message) as raised:
        load_encoder(f"{library}:resnet18")
    assert f"pip install 'mergerisk[{extra}]'" in str(raised.value)
    assert type(fault).__name__ in str(raised.value)
    assert "\n" not in str(raised.value)
