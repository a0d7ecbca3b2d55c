"""Heads on normalised features, and CLIP's zero-shot heads against CLIP itself."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.models import Classifier, Head, load_encoder
from mergerisk.models.sources.loading import text_identity
from mergerisk.models.sources.templates import CLASS_NAMES, GENERIC, TEMPLATES, class_names_for, templates_for
from tests.models.material import images, save_classifier, save_clip, scaled

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["cat", "dog of a cat", "photo 42"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "base")


def reference(folder: Path) -> tuple[transformers.CLIPModel, transformers.CLIPTokenizer]:
    return transformers.CLIPModel.from_pretrained(folder).eval(), transformers.CLIPTokenizer.from_pretrained(
        folder
    )


def test_normalised_features_are_a_cosine() -> None:
    draws = torch.Generator().manual_seed(0)
    head = Head(torch.randn(3, 5, generator=draws), torch.randn(3, generator=draws), normalize=True)
    features = torch.randn(4, 5, generator=draws).double()
    expected = [
        [float(w.double() @ f / f.norm() + b) for w, b in zip(head.weight, head.bias, strict=True)]
        for f in features
    ]
    torch.testing.assert_close(head(features), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(head(7 * features), head(features))


def test_the_gradient_through_the_norm_is_the_quotients() -> None:
    draws = torch.Generator().manual_seed(0)
    head = Head(torch.randn(3, 5, generator=draws, dtype=torch.float64), torch.zeros(3), normalize=True)
    features = torch.randn(4, 5, generator=draws, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, features)
    head(features).sum().backward()
    # A change along the feature changes no direction.
    assert features.grad is not None
    torch.testing.assert_close((features.grad * features).sum(dim=1), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_features_of_length_zero_give_no_nan(dtype: torch.dtype) -> None:
    head = Head(torch.ones(3, 5), torch.tensor([1.0, 2.0, 3.0]), normalize=True)
    features = torch.zeros(2, 5, dtype=dtype, requires_grad=True)
    logits = head(features)
    assert torch.equal(logits, torch.tensor([[1.0, 2.0, 3.0]] * 2, dtype=dtype))
    logits.sum().backward()
    assert features.grad is not None
    assert not bool(features.grad.isnan().any())


def test_a_head_does_not_normalise_unless_it_is_told_to() -> None:
    features = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Head(torch.eye(5), torch.zeros(5))(features), features)


def test_one_template_gives_clips_own_logits(clip: Path) -> None:
    model, tokenizer = reference(clip)
    prompts = tokenizer([f"a photo of a {name}." for name in NAMES], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(pixel_values=scaled(images()), **prompts).logits_per_image
    head = mr.zero_shot(str(clip), NAMES, ["a photo of a {}."])
    assert head.normalize
    found = Classifier(load_encoder(str(clip)), head)(images())
    torch.testing.assert_close(found, expected)
    assert float(expected.std()) > 0.1


def test_several_templates_are_averaged_as_directions(clip: Path) -> None:
    model, tokenizer = reference(clip)
    templates = ["a photo of a {}.", "my {}", "{}"]
    rows = []
    for name in NAMES:
        embeddings = []
        for template in templates:  # one by one, so without padding
            tokens = tokenizer(template.replace("{}", name), return_tensors="pt")
            with torch.no_grad():
                found = model.get_text_features(**tokens).pooler_output[0].double()
            embeddings.append(found / found.norm())
        mean = sum(embeddings) / len(embeddings)
        rows.append(mean / mean.norm() * model.logit_scale.detach().double().exp())
    head = mr.zero_shot(str(clip), NAMES, templates)
    torch.testing.assert_close(head.weight, torch.stack(rows).float())
    assert not bool(head.bias.any())


def test_batches_of_prompts_change_nothing(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mr.zero_shot(str(clip), NAMES, ["a photo of a {}.", "{}"])
    monkeypatch.setattr("mergerisk.models.sources.heads._BATCH", 2)
    torch.testing.assert_close(mr.zero_shot(str(clip), NAMES, ["a photo of a {}.", "{}"]).weight, whole.weight)


def test_long_prompts_are_cut_to_the_context(clip: Path) -> None:
    head = mr.zero_shot(str(clip), ["cat " * 50, "dog"], ["a photo of a {}."])
    assert bool(torch.isfinite(head.weight).all())


def test_a_tokenizer_in_one_file_is_the_same(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fast"
    shutil.copytree(clip, folder)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).unlink()
    reference(clip)[1].save_pretrained(folder)
    assert (folder / "tokenizer.json").is_file()
    assert not (folder / "vocab.json").is_file()
    torch.testing.assert_close(
        mr.zero_shot(str(folder), NAMES, GENERIC).weight, mr.zero_shot(str(clip), NAMES, GENERIC).weight
    )
    assert text_identity(str(folder)) != text_identity(str(clip))
    assert text_identity(str(clip)).keys() >= {"vocab.json", "merges.txt", "model.safetensors"}


def altered(clip: Path, to: Path, *missing: str) -> Path:
    shutil.copytree(clip, to)
    weights = load_file(to / "model.safetensors")
    kept = (
        {name: tensor for name, tensor in weights.items() if not name.startswith(missing)} if missing else weights
    )
    save_file(kept, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_what_has_no_text_is_refused_in_one_line(clip: Path, tmp_path: Path) -> None:
    mute = altered(clip, tmp_path / "mute")
    (mute / "vocab.json").unlink()
    foreign = altered(clip, tmp_path / "foreign")
    vocabulary = json.loads((foreign / "vocab.json").read_text())
    (foreign / "vocab.json").write_text(json.dumps(vocabulary | {"<|endoftext|>": 999}))
    broken = altered(clip, tmp_path / "broken")
    (broken / "vocab.json").write_text("{")
    tower = tmp_path / "tower"
    transformers.CLIPVisionModel.from_pretrained(clip).save_pretrained(tower)
    cases = {
        str(tower): "has no text tower",
        str(save_classifier(tmp_path / "vit", "vit")): "has no text tower",
        "starter-vit": "has no text tower",
        "timm:resnet18": "brings no such head",
        str(altered(clip, tmp_path / "scale", "logit_scale")): "has no text tower, no 'logit_scale'",
        str(altered(clip, tmp_path / "layer", "text_model.encoder.layers.1.")): "text tower: the checkpoint lacks",
        str(mute): "has no tokenizer: neither tokenizer.json nor vocab.json",
        str(foreign): "belongs to another model",
        str(broken): "tokenizer cannot be loaded",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as raised:
            mr.zero_shot(name, NAMES, GENERIC)
        assert "\n" not in str(raised.value)
    for names, templates, message in (
        ([], GENERIC, "no class names"),
        (NAMES, [], "no templates"),
        (NAMES, ["a photo."], "'a photo.' has no {}"),
    ):
        with pytest.raises(UserError, match=message):
            mr.zero_shot(str(clip), names, templates)


def test_the_templates_of_the_literature() -> None:
    """Counts as in the merging literature; each with one place for the name."""
    counts = {"sun397": 2, "cars": 8, "resisc45": 18, "eurosat": 3, "svhn": 1, "gtsrb": 3, "mnist": 1, "dtd": 8}
    assert {task: len(set(templates)) for task, templates in TEMPLATES.items()} == counts
    assert all(template.count("{}") == 1 for templates in TEMPLATES.values() for template in templates)
    assert TEMPLATES["gtsrb"][2] == 'a close up photo of a "{}" traffic sign.'
    assert TEMPLATES["dtd"][0] == "a photo of a {} texture."
    assert TEMPLATES["dtd"][5] == "a photo of the {} pattern."
    assert TEMPLATES["resisc45"][0] == "satellite imagery of {}."
    assert TEMPLATES["resisc45"][7] == "aerial imagery of a {}."
    assert TEMPLATES["resisc45"][17] == "aerial view of the {}."
    assert TEMPLATES["eurosat"][1] == "a centered satellite photo of a {}."
    assert templates_for("tanganke/stanford_cars") == templates_for("stanford-cars") == TEMPLATES["cars"]
    assert templates_for("GTSRB") == TEMPLATES["gtsrb"]
    assert templates_for("letters") == GENERIC


def test_class_names_for_prompts() -> None:
    signs = CLASS_NAMES["gtsrb"]
    assert len(set(signs)) == 43
    # By the benchmark's own class numbers.
    by_number = {
        1: "30 kph",
        6: "end / de-restriction",
        8: "120 kph",
        12: "priority road",
        13: "yield",
        14: "stop",
    }
    by_number |= {
        17: "no entry",
        18: "exclamation",
        21: "double curve",
        25: "road work",
        31: "deer",
        33: "right turn",
    }
    by_number |= {35: "white forward arrow", 38: "keep right", 40: "traffic circle", 42: "trucks has ended"}
    for number, words in by_number.items():
        assert words in signs[number]
    assert len(CLASS_NAMES["eurosat"]) == 10
    assert class_names_for("svhn", tuple("abcdefghij")) == tuple("0123456789")
    assert class_names_for("dtd", ("banded", "blotchy")) == ("banded", "blotchy")
    assert class_names_for("gtsrb", ("some", "subset")) == ("some", "subset")
