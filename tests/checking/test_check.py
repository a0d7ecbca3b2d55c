"""A model in its own library's way beside mergerisk's, against scripts written out by hand."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import mergerisk as mr
from mergerisk.checking.comparing import difference
from mergerisk.checking.own import transformers_way
from mergerisk.checking.probing import measure
from mergerisk.errors import UserError
from mergerisk.models.sources.classifiers import load_classifier
from tests.checking.material import backbone, normalised, save_half, save_model
from tests.crafting.material import NAMES, save_pictures
from tests.models.material import save_clip, write_preprocessor

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checking")
    save_model(folder / "model")
    save_pictures(folder / "wide", size=(24, 32))
    save_pictures(folder / "fitting")
    return folder


def by_hand(model: Path, pictures: Path, file: str) -> torch.Tensor:
    """Probabilities of a picture, by Pillow and the model's own class."""
    from transformers import ViTForImageClassification

    picture = Image.open(pictures / file).resize((16, 16), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        logits: Any = (
            ViTForImageClassification.from_pretrained(model).eval()(pixel_values=normalised(pixels)).logits
        )
    return logits[0].softmax(0)


def test_both_sides_are_what_they_say(folder: Path) -> None:
    found = mr.check(folder / "model", folder / "wide")
    assert found.agrees
    assert [reading.name for reading in found.readings] == ["attack", "study"]
    ours = load_classifier(str(folder / "model")).module
    for row in found.images.iloc[::5].to_dict("records"):
        expected = by_hand(folder / "model", folder / "wide", str(row["file"]))
        assert row["own"] == NAMES[int(expected.argmax())]
        assert row["own_probability"] == pytest.approx(float(expected.max()), abs=1e-5)
        pixels = torch.from_numpy(np.array(Image.open(folder / "wide" / str(row["file"]))))
        with torch.no_grad():
            here = ours(pixels.permute(2, 0, 1)[None].float() / 255)[0].softmax(0)
        assert row["attack_probability"] == pytest.approx(float(here.max()), abs=1e-5)
    assert set(found.images["label"]) == set(NAMES)
    correct = [row["own"] == row["label"] for row in found.images.to_dict("records")]
    assert found.accuracy == pytest.approx(sum(correct) / len(correct))


def test_identical_pixels_differ_by_nothing(folder: Path) -> None:
    found = mr.check(folder / "model", folder / "fitting")
    for reading in found.readings:
        assert reading.largest < 1e-5
        assert reading.agreement == (1.0, pytest.approx(12 / (12 + 1.959964**2)), 1.0)  # Wilson's, of 12 of 12


def test_a_task_that_is_too_small_is_named(folder: Path) -> None:
    found = mr.check(folder / "model", folder / "wide", size=4)
    attack, study = found.readings
    assert (attack.differing > 0, study.differing > 0) == (False, True)
    assert max(study.steps, key=study.steps.__getitem__) == "reading the file"
    assert "in a study: the task brings images to 4 × 4 pixels" in found.reasons[0]
    assert "size: 16" in found.reasons[0]
    assert mr.check(folder / "model", folder / "fitting", size=16).agrees, "the advice helps"


def test_the_image_size_of_a_study_is_named(folder: Path) -> None:
    found = mr.check(folder / "model", folder / "fitting", image_size=32)
    assert not found.agrees
    assert "image size: the model sees 32 × 32 pixels, with its library 16 × 16" in found.reasons[0]
    assert found.readings[0].differing == 0, "mergerisk attack has no such option"


def test_half_precision_is_named(folder: Path, tmp_path: Path) -> None:
    half = save_half(folder / "model", tmp_path / "half")
    assert mr.check(half, folder / "fitting").agrees
    found = mr.check(half, folder / "fitting", tolerance=1e-4)
    assert "half precision: the library computes in bfloat16, mergerisk in float32" in found.reasons[0]
    assert "in attack and in a study" in found.reasons[0]


def test_a_folder_without_a_processor(folder: Path, tmp_path: Path) -> None:
    bare = save_model(tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    found = mr.check(bare, folder / "fitting")
    assert any("no preprocessor_config.json" in remark for remark in found.remarks)
    mean = dict(zip(found.settings["setting"], found.settings["own"], strict=True))["mean"]
    assert mean == "0.500, 0.500, 0.500"  # the defaults of ViTImageProcessor


def test_a_whole_clip_is_asked_for_the_folders_names(tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    clip = save_clip(tmp_path / "clip", context=77)
    write_preprocessor(clip, size={"shortest_edge": 32}, crop_size=32)
    found = mr.check(clip, save_pictures(tmp_path / "pictures", 1, size=(32, 32)))
    assert found.agrees
    assert [reading.name for reading in found.readings] == ["study"]
    file = str(found.images["file"][0])
    picture = Image.open(tmp_path / "pictures" / file)
    pixels = normalised(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255)
    prompts = [f"a photo of a {name}." for name in ("2", "Red Fox", "cat")]
    tokens = CLIPTokenizer.from_pretrained(clip)(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = CLIPModel.from_pretrained(clip).eval()(pixel_values=pixels, **tokens).logits_per_image
    assert found.images["own_probability"][0] == pytest.approx(float(logits.softmax(1).max()), abs=1e-5)


def test_features_where_there_is_no_head(folder: Path, tiny_vit: Path, tmp_path: Path) -> None:
    found = mr.check(tiny_vit, folder / "wide")
    assert not found.logits
    assert found.agrees
    assert "own" not in found.images
    clip = save_clip(tmp_path / "clip")
    write_preprocessor(clip, size={"shortest_edge": 32}, crop_size=32)
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (40, 32), "red").save(tmp_path / "flat" / "a.png")
    assert not mr.check(clip, tmp_path / "flat", tolerance=2).logits


def test_a_factory_gets_pixels_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    found = mr.check("tests.checking.material:backbone", folder / "wide")
    assert not found.logits
    assert any("5 numbers where there are 3 class folders" in remark for remark in found.remarks)
    assert [reading.name for reading in found.readings] == ["study"]
    with pytest.raises(UserError, match="add --image-size S"):
        mr.check("tests.checking.material:features", folder / "fitting")
    assert mr.check("tests.checking.material:features", folder / "fitting", image_size=16).agrees
    weights = {name: tensor * 2 for name, tensor in backbone().state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    found = mr.check(f"tests.checking.material:backbone@{tmp_path / 'weights.safetensors'}", folder / "fitting")
    assert found.agrees
    assert [reading.name for reading in found.readings] == ["study"]


def test_labels_from_a_table(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,label\ncat/0.png,cat\n2/0.png,3d printer\n")
    found = mr.check(folder / "model", folder / "fitting", labels=table)
    assert found.images["label"].tolist() == ["3d printer", "cat"]
    assert any("10 files left out" in remark for remark in found.remarks)


def test_images_without_labels(folder: Path) -> None:
    found = mr.check(folder / "model", folder / "fitting" / "cat")
    assert found.accuracy is None
    assert found.images["label"].isna().all()
    assert not found.reasons


def test_transparency_is_read_differently(folder: Path, tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., :3], pixels[:8, :, 3] = np.random.default_rng(0).integers(0, 256, (16, 16, 3)), 255
    (tmp_path / "clear").mkdir()
    Image.fromarray(pixels).save(tmp_path / "clear" / "a.png")
    found = mr.check(folder / "model", tmp_path / "clear", tolerance=0.01)
    assert "transparency is put on black" in found.reasons[0]


def test_results_do_not_depend_on_the_order_of_files(folder: Path) -> None:
    first, second = (mr.check(folder / "model", folder / "fitting", limit=6) for _ in range(2))
    assert first.images.equals(second.images)
    assert set(first.images["label"].value_counts()) == {2}, "evenly over the classes"


def test_json_holds_everything(folder: Path) -> None:
    found = mr.check(folder / "model", folder / "fitting" / "cat")
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["agrees"] is True
    assert len(plain["images"]) == 4
    assert plain["images"][0]["label"] is None
    assert plain["readings"][1]["agreement"]["share"] == 1.0


@pytest.mark.parametrize(
    ("about", "part"),
    [
        ({}, (0, 0, 1, 1)),
        ({"size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": 16}, (1 / 4, 0, 3 / 4, 1)),
        (
            {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": 16},
            (3 / 8, 1 / 4, 5 / 8, 3 / 4),
        ),
    ],
)
def test_what_is_done_with_a_picture_is_measured(about: dict[str, Any], part: tuple[float, ...]) -> None:
    from transformers import CLIPImageProcessor

    about = {"size": {"height": 16, "width": 16}, "do_center_crop": False} | about
    processor: Any = CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], **about)
    found = measure(lambda picture: processor(picture, return_tensors="pt")["pixel_values"], (120, 240))
    assert found is not None
    assert found.size == (16, 16)
    assert found.mean == pytest.approx((0.1, 0.2, 0.3), abs=1e-4)
    assert found.std == pytest.approx((0.4, 0.5, 0.6), abs=1e-4)
    # Of 16 pixels a grey level of 8 bits is less than a tenth.
    assert found.part == pytest.approx(part, abs=0.01)


def test_pickles_are_refused_before_the_library_sees_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes((folder / "model" / "config.json").read_bytes())
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights are not read"):
        transformers_way("it", tmp_path / "model", None)


def test_differences_are_shares_of_the_librarys_logits() -> None:
    own = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    ours = torch.tensor([[4.0, 2.0, 2.0], [5.0, 5.0, 5.0], [1.0, 1.0, 4.0]])
    # Less their means: (1, −1, 0) and (4/3, −2/3, −2/3), which is √(1/9 + 1/9 + 4/9) from it, of √2.
    expected = [(6 / 9) ** 0.5 / 2**0.5, 0.0, 1.0]
    torch.testing.assert_close(difference(own, ours, logits=True), torch.tensor(expected, dtype=torch.float64))
    whole = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.5]])
    assert float(difference(*whole, logits=False)) == pytest.approx(0.1)
    assert float(difference(torch.ones(1, 1), torch.zeros(1, 1), logits=True)) == 1, "of one number"


def test_a_library_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm is not installed.*pip install 'mergerisk\[timm\]'"):
        mr.check("timm:net", folder / "fitting")


@pytest.mark.parametrize(
    ("model", "named", "message"),
    [
        ("model", {"limit": 0}, "--limit must be 1 or more"),
        ("model", {"tolerance": 0.0}, "--tolerance must be above 0"),
        ("model", {"image_size": -1}, "--image-size must be 1 or more"),
        ("model", {"labels": "nowhere.csv"}, "cannot be read"),
        ("starter-vit", {}, "ships with mergerisk"),
        ("wide", {}, "the folder has no config.json"),
        ("tests.checking.material:absent", {}, "has no .absent."),
        ("tests.checking.material:unsteady", {}, "in its own library's way it fails on"),
        ("nowhere/at/all", {}, "no such file or folder"),
    ],
)
def test_mistakes(folder: Path, model: str, named: dict[str, Any], message: str) -> None:
    given = str(folder / model) if (folder / model).exists() else model
    with pytest.raises(UserError, match=message) as raised:
        mr.check(given, folder / "fitting", **named)
    assert "\n" not in str(raised.value)


MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


class Tower(nn.Module):
    """A linear map of the channels' means, with or without a head, as timm's and OpenCLIP's models answer."""

    def __init__(self, head: int = 0) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, head) if head else nn.Identity()
        draws = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draws))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.layer(pixels.mean(dim=(2, 3))))
        return out

    def get_classifier(self) -> nn.Module:
        return self.head


def transform(picture: Image.Image) -> torch.Tensor:
    small = picture.resize((16, 16), Image.Resampling.BICUBIC)
    return normalised(torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255, MEAN, STD)


def test_timm_has_its_own_transform_and_head(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_model(name: str, *, pretrained: bool, num_classes: int = 3) -> nn.Module:
        assert (name, pretrained) == ("net", True)
        made: Any = Tower(num_classes)
        made.pretrained_cfg = {"input_size": (3, 16, 16), "mean": MEAN, "std": STD, "fixed_input_size": False}
        return made

    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    config = {"input_size": (3, 16, 16), "interpolation": "bicubic"}
    module.data = SimpleNamespace(  # type: ignore[attr-defined]
        resolve_model_data_config=lambda _: config, create_transform=lambda **_: transform
    )
    monkeypatch.setitem(sys.modules, "timm", module)
    found = mr.check("timm:net", folder / "wide")
    assert found.logits
    assert found.agrees
    assert any("order" in remark for remark in found.remarks), "it names no classes"
    few = mr.check("timm:net", save_pictures(tmp_path / "few", 1).parent, limit=3)
    assert (few.logits, few.accuracy) == (True, None)
    assert any("call them by the numbers of its classes" in remark for remark in few.remarks)
    for number, name in enumerate(("cat", "Red_Fox", "2")):
        (tmp_path / "few" / name).rename(tmp_path / "few" / f"{number}_")
    for number in range(3):
        (tmp_path / "few" / f"{number}_").rename(tmp_path / "few" / f"{number}")
    assert mr.check("timm:net", tmp_path / "few").accuracy is not None, "the advice helps"
    settings = found.settings.set_index("setting")
    assert settings["own"]["resampling"] == "bicubic"
    assert settings["own"]["mean"] == settings["study"]["mean"] == "0.100, 0.200, 0.300"


def test_openclip_is_asked_for_the_folders_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower: Any = Tower()
    tower.image_size, tower.image_mean, tower.image_std = 16, MEAN, STD
    texts = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    asked: list[list[str]] = []

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual, self.logit_scale = tower, nn.Parameter(torch.tensor(2.0))

        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            return tower(pixels)

        def encode_text(self, tokens: list[str]) -> torch.Tensor:
            asked.append(tokens)
            return texts

    module: Any = ModuleType("open_clip")
    module.create_model = lambda *_, **__: Clip()
    module.create_model_and_transforms = lambda *_, **__: (Clip(), None, transform)
    module.get_tokenizer = lambda _: lambda prompts: prompts
    module.list_pretrained_tags_by_model = lambda _: ["tag"]
    monkeypatch.setitem(sys.modules, "open_clip", module)
    found = mr.check("open_clip:net/tag", folder / "fitting")
    assert found.agrees
    assert asked[0] == ["a photo of a 2.", "a photo of a Red Fox.", "a photo of a cat."]
    with torch.no_grad():
        image = tower(transform(Image.open(folder / "fitting" / "2" / "0.png"))[None])
        logits = np.exp(2) * F.cosine_similarity(image[:, None], texts[None], dim=2)
    with pytest.raises(UserError, match="name one of its weights, open_clip:net/WEIGHTS: tag"):
        mr.check("open_clip:net/gat", folder / "fitting")
    row = found.images.set_index("file").loc["2/0.png"]
    assert row["own_probability"] == pytest.approx(float(logits.softmax(1).max()), abs=1e-5)
