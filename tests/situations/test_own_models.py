"""Models as people have them: their own modules, and folders whose files say how they compute."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import mergerisk as mr
from mergerisk import api
from mergerisk.audit import audit
from mergerisk.cli.study_words import describe_plan, outline
from mergerisk.crafting import Crafting, craft_folder, parse_preprocessing
from mergerisk.models.core.behaviour import check_behaviour
from mergerisk.models.sources.classifiers import load_classifier
from mergerisk.models.sources.hub import _wanted
from mergerisk.models.sources.loading import folder_identity
from mergerisk.recipe import load_recipe, merge_checkpoints
from tests.models.material import CLASSES, MEAN, STD, images, save_classifier, save_clip, write_preprocessor
from tests.situations import own_modules
from tests.situations.situation import Situation, refusal

if TYPE_CHECKING:
    from pathlib import Path

HERE = "tests.situations.own_modules"


def classifier_beside(folder: Path, name: str, config: dict[str, Any], **preprocessor: Any) -> Path:
    """A fine-tuned ViT whose files say something of their own; the base is ``base`` beside it."""
    if not (folder / "base").is_dir():
        save_classifier(folder / "base", "vit")
    made = save_classifier(folder / name, "vit", seed=0)
    state = load_file(made / "model.safetensors")
    draws = torch.Generator().manual_seed(1)
    state = {n: t + 0.02 * torch.randn(t.shape, generator=draws) for n, t in state.items()}
    save_file(state, made / "model.safetensors", {"format": "pt"})
    (made / "config.json").write_text(json.dumps(json.loads((made / "config.json").read_text()) | config))
    write_preprocessor(made, **preprocessor)
    return made


def own_logits(folder: Path, pixels: torch.Tensor, mean: Any = MEAN, std: Any = STD) -> torch.Tensor:
    """What transformers itself makes of pixels that have the model's size."""
    model = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    low, wide = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    with torch.no_grad():
        found: torch.Tensor = model(pixel_values=(pixels - low) / wide).logits
    return found


def is_its_own(config: dict[str, Any], mean: Any = MEAN) -> Any:
    """Whether a release is measured as transformers computes it."""

    def measure(folder: Path) -> bool:
        release = classifier_beside(folder, "release", config, image_mean=mean)
        base = mr.load_encoder(str(folder / "base"))
        head, _ = mr.checkpoint_head(str(release))
        found = mr.Classifier(mr.load_sibling(base, release), head)(images())
        in_the_base = mr.Classifier(base.with_state(mr.load_sibling(base, release).state()), head)(images())
        expected = own_logits(release, images(), mean)
        assert not torch.allclose(in_the_base, expected, atol=1e-3), "the base's configuration would do"
        return torch.allclose(found, expected, rtol=1e-4, atol=1e-4)

    return measure


def write_photos(folder: Path, labels: torch.Tensor, pixels: torch.Tensor) -> None:
    for number, (label, picture) in enumerate(zip(labels.tolist(), pixels, strict=True)):
        file = folder / CLASSES[label] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy()).save(file)


def bytes_as_pixels(count: int, side: int = 32) -> torch.Tensor:
    draws = torch.Generator().manual_seed(5)
    noise = torch.rand(count, 3, 1, 1, generator=draws) + 0.35 * torch.randn(count, 3, side, side, generator=draws)
    return (noise.clamp(0, 1) * 255).round() / 255


def accuracy_of_a_release(folder: Path) -> float:
    """Clean accuracy in a whole audit on images that the release itself has labelled."""
    release = classifier_beside(folder, "release", {"hidden_act": "relu"}, image_mean=[0.1, 0.9, 0.2])
    pixels = bytes_as_pixels(300)
    state = load_file(release / "model.safetensors")
    # No class ahead of the others throughout, and images that no rounding turns.
    state["classifier.bias"] -= own_logits(release, pixels, [0.1, 0.9, 0.2]).mean(dim=0)
    save_file(state, release / "model.safetensors", {"format": "pt"})
    said = own_logits(release, pixels, [0.1, 0.9, 0.2])
    sure = said.log_softmax(dim=1).topk(6, dim=0).indices
    said = said.argmax(dim=1)
    assert torch.equal(said[sure], torch.arange(3).expand(6, 3))
    chosen = sure.T.flatten()
    write_photos(folder / "photos", said[chosen], pixels[chosen])
    content = {
        "base": "base",
        "ingredients": {"other": "base"},
        "merged": "release",
        "images": {"photos": "photos"},
        "heads": {"from": "checkpoint", "files": {"photos": "release"}},
        "scenarios": ["ingredients"],
        "attacks": ["fgsm"],
        "budgets": {"epsilon": ["1/255"]},
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump(content))
    result = audit(folder / "audit.yaml", folder / "out")
    report = (folder / "out" / "report.html").read_text()
    assert "merged is measured in its own configuration" in report
    assert "hidden_act" in report
    return result.verdict.model("merged").clean_accuracy.value


def study_file(folder: Path, **changes: Any) -> Path:
    draws = np.random.default_rng(0)
    rows = 36
    np.savez(
        folder / "noise.npz",
        images=draws.integers(0, 256, (rows, 16, 16, 3), dtype=np.uint8),
        labels=np.arange(rows) % 3,
        split=np.arange(rows) // 12,
    )
    content = {
        "backbone": f"{HERE}:plain",
        "tasks": ["noise.npz"],
        "merging": ["weight_averaging"],
        "attacks": ["fgsm"],
        "budgets": {"epsilon": ["8/255"]},
        "images_per_task": 6,
        "experts": {"fine_tune": {"epochs": 1}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content | changes))
    return folder / "study.yaml"


def merging_study(folder: Path, **changes: Any) -> Any:
    return api.validate(
        study_file(folder, backbone="base", experts={"from": "files", "files": {"noise": "expert"}}, **changes)
    )


def merging_in_a_study(config: dict[str, Any], **preprocessor: Any) -> Any:
    def measure(folder: Path) -> str:
        classifier_beside(folder, "expert", config, **preprocessor)
        return refusal(lambda: len(merging_study(folder).stages) > 0)

    return measure


def merging_by_a_recipe(
    config: dict[str, Any], *, recipe: dict[str, Any] | None = None, **preprocessor: Any
) -> Any:
    def measure(folder: Path) -> str:
        classifier_beside(folder, "expert", config, **preprocessor)
        content = {"base": "base", "experts": ["expert"], "method": "weight_averaging"} | (recipe or {})
        (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
        return refusal(
            lambda: (
                (merge_checkpoints(load_recipe(folder / "recipe.yaml"), folder / "out") / "README.md").read_text(),
                json.loads((folder / "out" / "preprocessor_config.json").read_text())["image_mean"],
            )
        )

    return measure


def with_the_bases_preprocessing(folder: Path) -> bool:
    classifier_beside(folder, "expert", {}, image_mean=[0.1, 0.2, 0.3])
    return len(merging_study(folder, preprocessing="base").stages) > 0


def keys_of(folder: Path, preprocessing: Any) -> set[str]:
    return set(api.plan(study_file(folder, preprocessing=preprocessing))[0].stages)


def clip_with_a_processor(folder: Path) -> Path:
    """As transformers 5 saves a CLIPProcessor."""
    for name, seed in (("clip", 0), ("expert", 1)):
        made = save_clip(folder / name, seed)
        content = json.loads((made / "preprocessor_config.json").read_text()) | {"image_mean": [0.1, 0.2, 0.3]}
        (made / "preprocessor_config.json").unlink()
        (made / "processor_config.json").write_text(
            json.dumps({"processor_class": "CLIPProcessor", "image_processor": content})
        )
    return folder / "clip"


def merged_files(folder: Path) -> set[str]:
    clip_with_a_processor(folder)
    content = {"base": "clip", "experts": ["expert"], "method": "weight_averaging"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return {path.name for path in merge_checkpoints(load_recipe(folder / "recipe.yaml"), folder / "out").iterdir()}


def rounded_mean(encoder: Any) -> list[float]:
    return [round(value, 3) for value in encoder.mean.flatten().tolist()]


def clip_release(folder: Path, *, projection: bool, dtype: torch.dtype = torch.float32) -> str:
    """Whether a whole CLIP can be a target, whose projection was trained too or not."""
    save_clip(folder / "base")
    save_clip(folder / "release", 1)
    base, state = (load_file(folder / name / "model.safetensors") for name in ("base", "release"))
    if not projection:
        state["visual_projection.weight"] = base["visual_projection.weight"]
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(stored, folder / "release" / "model.safetensors", {"format": "pt"})
    target = {"label": "release", "encoder": "release"}
    return refusal(lambda: len(api.validate(study_file(folder, backbone="base", targets=[target])).stages) > 0)


def means_without_a_preprocessor(folder: Path) -> tuple[list[float], list[float]]:
    (save_classifier(folder / "deit", "deit") / "preprocessor_config.json").unlink()
    name = str(folder / "deit")
    return rounded_mean(load_classifier(name).module), rounded_mean(mr.load_encoder(name))


def craft(name: str, **options: Any) -> Any:
    """Attack a module with six pictures of noise."""

    def measure(folder: Path) -> str:
        for number in range(6):
            noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            (folder / "photos").mkdir(exist_ok=True)
            Image.fromarray(noise).save(folder / "photos" / f"{number}.png")
        crafting = Crafting(attack="fgsm", parameters={}, epsilon=8 / 255)
        before = torch.random.get_rng_state()
        said = refusal(
            lambda: craft_folder(f"{HERE}:{name}", folder / "photos", folder / "out", crafting, **options).summary[
                "attacked"
            ]
        )
        assert torch.equal(torch.random.get_rng_state(), before)
        return said

    return measure


def half_says_what_float_says(folder: Path) -> bool:  # noqa: ARG001
    widened = load_classifier(f"{HERE}:half").module
    return torch.allclose(widened(images(16)), own_modules.net()(images(16)), atol=1e-2)


def averaged_twice(folder: Path) -> bool:
    options = {"samples": 8}
    for out in ("a", "b"):
        (folder / out).mkdir()
        craft("dropping", **options)(folder / out)
    one, two = ((folder / out / "out" / "attack.csv").read_bytes() for out in ("a", "b"))
    return one == two


def validated(name: str, **changes: Any) -> Any:
    return lambda folder: refusal(lambda: api.validate(study_file(folder, backbone=f"{HERE}:{name}", **changes)))


def own_study(folder: Path) -> set[str]:
    """Own architecture with BatchNorm, own experts, a merge made elsewhere, normalisation inside: one file."""
    state = own_modules.own().state_dict()
    draws = torch.Generator().manual_seed(2)
    for name in ("expert", "release"):
        moved = {
            key: tensor + 0.01 * torch.randn(tensor.shape, generator=draws)
            if tensor.is_floating_point() and "running" not in key and key not in {"mean", "std"}
            else tensor
            for key, tensor in state.items()
        }
        save_file(moved, folder / f"{name}.safetensors")
    file = study_file(
        folder,
        backbone=f"{HERE}:own",
        experts={"from": "files", "files": {"noise": "expert.safetensors"}},
        targets=[{"label": "release", "encoder": "release.safetensors"}],
    )
    result = mr.run(str(file), folder / "out")
    return set(result.rates["target"])


def plan_text(study: Path) -> str:
    made, kept = api.plan(study)
    return describe_plan(made, outline(made, kept))


SITUATIONS = (
    Situation(
        "my module normalises inside, with buffers called mean and std",
        lambda _: torch.equal(mr.load_encoder(f"{HERE}:own").prepare(images(16)), images(16)),
        True,
    ),
    Situation(
        "a study says how my module's pixels are scaled, and its plan shows it",
        lambda folder: plan_text(
            study_file(folder, preprocessing={"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]})
        ),
        re.compile(
            r"pixels of .*:plain and of what is made from it: mean \[0.4, 0.5, 0.6\], std \[0.2, 0.3, 0.4\]"
        ),
    ),
    Situation(
        "other preprocessing in the study makes other stages, all of them but the task's",
        lambda folder: len(
            keys_of(folder, {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]})
            & keys_of(folder, {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.5]})
        ),
        1,
    ),
    Situation(
        "mean and std of bytes",
        lambda folder: refusal(
            lambda: api.validate(study_file(folder, preprocessing={"mean": [123, 116, 103], "std": [58, 57, 57]}))
        ),
        re.compile(r"preprocessing: mean is of pixels in \[0, 1\], got \[123.0, .*divide mean and std by 255$"),
    ),
    Situation(
        "a mean without std",
        lambda folder: refusal(lambda: api.validate(study_file(folder, preprocessing={"mean": [0.5, 0.5, 0.5]}))),
        re.compile(r"preprocessing: give mean and std together"),
    ),
    Situation("a release with another activation", is_its_own({"hidden_act": "relu"}), True),
    Situation("a release with other attention heads", is_its_own({"num_attention_heads": 4}), True),
    Situation("a release with another layer norm ε", is_its_own({"layer_norm_eps": 0.5}), True),
    Situation("a release with another mean", is_its_own({}, mean=[0.1, 0.9, 0.2]), True),
    Situation("a whole audit of a release with its own activation and mean", accuracy_of_a_release, 1.0),
    Situation(
        "a release whose projection was trained too",
        lambda folder: clip_release(folder, projection=True),
        re.compile(r"^targets: release: \S+model\.safetensors: visual_projection\.weight is not the base's"),
    ),
    Situation(
        "a release in half precision, whose projection was not trained",
        lambda folder: clip_release(folder, projection=False, dtype=torch.bfloat16),
        "accepted: True",
    ),
    Situation(
        "merging an expert with another activation, in a study",
        merging_in_a_study({"hidden_act": "relu"}),
        re.compile(
            r"^experts\.files\.noise: hidden_act is 'relu' in \S+/expert/config\.json, 'gelu' in "
            r"\S+/base/config\.json; weights that are merged"
        ),
    ),
    Situation(
        "merging an expert with another activation, by a recipe",
        merging_by_a_recipe({"hidden_act": "relu"}),
        re.compile(
            r"^expert 'expert': hidden_act is 'relu' in \S+/expert/config\.json, 'gelu' in \S+/base/config\.json; "
            r"weights that are merged"
        ),
    ),
    Situation(
        "merging an expert with another mean, in a study",
        merging_in_a_study({}, image_mean=[0.1, 0.2, 0.3]),
        re.compile(r"image_mean is \[0\.1.*/expert/preprocessor_config\.json, .*; .* say preprocessing: base$"),
    ),
    Situation("the same, with preprocessing: base as the message says", with_the_bases_preprocessing, True),
    Situation(
        "merging an expert with another mean, by a recipe",
        merging_by_a_recipe({}, image_mean=[0.1, 0.2, 0.3]),
        re.compile(r"^expert 'expert': image_mean is \[0\.1, 0\.2, 0\.3\] in .*say preprocessing: base, or state"),
    ),
    Situation(
        "the same, with preprocessing: base as the message says; the card tells",
        merging_by_a_recipe({}, recipe={"preprocessing": "base"}, image_mean=[0.1, 0.2, 0.3]),
        re.compile(
            r"Preprocessing was another, and the result has the base's: image_mean is .*\[0\.4, 0\.5, 0\.6\]\)$"
        ),
    ),
    Situation(
        "the same, with a mean for all of them: the result has it",
        merging_by_a_recipe(
            {},
            recipe={"preprocessing": {"mean": [0.2, 0.2, 0.2], "std": [0.3, 0.3, 0.3]}},
            image_mean=[0.1, 0.2, 0.3],
        ),
        re.compile(r"compared, and the same as the base's.*\[0\.2, 0\.2, 0\.2\]\)$"),
    ),
    Situation(
        "an expert that differs in dropout, labels and versions only, in a study",
        merging_in_a_study(
            {
                "hidden_dropout_prob": 0.3,
                "attention_probs_dropout_prob": 0.1,
                "id2label": {"0": "a", "1": "b", "2": "c"},
                "initializer_range": 0.5,
                "transformers_version": "4.20.0",
                "torch_dtype": "float16",
                "architectures": ["Mine"],
                "_name_or_path": "/home/me",
                "use_cache": False,
                "my_notes": "third run",
            }
        ),
        "accepted: True",
    ),
    Situation(
        "an expert that differs in dropout and labels only, by a recipe",
        merging_by_a_recipe({"hidden_dropout_prob": 0.3, "id2label": {"0": "a", "1": "b", "2": "c"}}),
        re.compile(r"Configuration and preprocessing compared, and the same as the base's; of expert\."),
    ),
    Situation(
        "the processor_config.json of transformers 5, in a study",
        lambda folder: rounded_mean(mr.load_encoder(str(clip_with_a_processor(folder)))),
        [0.1, 0.2, 0.3],
    ),
    Situation(
        "the processor_config.json of transformers 5, in a merge",
        lambda folder: "processor_config.json" in merged_files(folder),
        True,
    ),
    Situation(
        "the processor_config.json of transformers 5, from the hub and in the store's keys",
        lambda folder: (
            "processor_config.json" in _wanted("org/name", ["model.safetensors", "processor_config.json"]),
            "processor_config.json" in folder_identity(clip_with_a_processor(folder)),
        ),
        (True, True),
    ),
    Situation(
        "a DeiT without a preprocessor is one model in attack and in a study",
        means_without_a_preprocessor,
        ([0.485, 0.456, 0.406], [0.485, 0.456, 0.406]),
    ),
    Situation(
        "a classifier with one logit", craft("one_logit"), re.compile("has one logit, and one number is no")
    ),
    Situation("a script module", craft("script"), "accepted: 6"),
    Situation("a classifier in half precision", half_says_what_float_says, True),
    Situation("the same is attacked", craft("half"), "accepted: 6"),
    Situation(
        "logits in half precision", craft("half_logits"), re.compile(r"float16; end its forward with \.float")
    ),
    Situation(
        "a classifier without gradient", craft("no_gradient"), re.compile("gives no gradient of its logits")
    ),
    Situation(
        "the same as a target, which needs none",
        craft("plain", targets=[f"{HERE}:no_gradient"]),
        "accepted: 6",
    ),
    Situation(
        "a classifier that draws",
        craft("dropping"),
        re.compile("something else of the same images at every call.*or have its draws averaged: --samples 16$"),
    ),
    Situation("the same, averaged as the message says", craft("dropping", samples=16), "accepted: 6"),
    Situation("its averages repeat", averaged_twice, True),
    Situation(
        "BatchNorm that stays in training mode",
        craft("training"),
        re.compile("depends on the others in the batch"),
    ),
    Situation(
        "BatchNorm without running statistics",
        craft("no_statistics"),
        re.compile("depends on the others in the batch"),
    ),
    Situation(
        "a target that draws",
        craft("plain", targets=[f"{HERE}:dropping"]),
        re.compile(f"^{HERE}:dropping: says som"),
    ),
    Situation(
        "preprocessing for one model of an attack",
        craft("plain", preprocessing=parse_preprocessing([f"{HERE}:plain={{mean: [0, 0, 0], std: [1, 1, 1]}}"])),
        "accepted: 6",
    ),
    Situation(
        "preprocessing for a model that the attack does not have",
        craft("plain", preprocessing=parse_preprocessing(["plane={mean: [0, 0, 0], std: [1, 1, 1]}"])),
        re.compile("^--preprocessing plane: no such model"),
    ),
    Situation("a backbone that draws, by validate", validated("dropping"), re.compile("at every call")),
    Situation("a backbone on batch statistics, by validate", validated("training"), re.compile("in the batch")),
    Situation("a backbone without gradient, by validate", validated("no_gradient"), re.compile("no gradient")),
    Situation(
        "another architecture that draws, by validate",
        validated("plain", other_architecture={"backbone": f"{HERE}:dropping"}, surrogates=["other_architecture"]),
        re.compile(f"^other_architecture: {HERE}:dropping: says something else"),
    ),
    Situation(
        "own architecture with BatchNorm, own experts, a merge made elsewhere, normalisation inside",
        own_study,
        {"pretrained", "expert", "weight_averaging", "release"},
    ),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_own_models(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)
    shutil.rmtree(tmp_path)


def test_two_passes_that_differ_by_rounding_alone_are_one_answer() -> None:
    """A network of which each pass sums in another order: a permutation of its features, drawn anew."""
    weight = torch.randn(3, 3 * 16 * 16, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(1)

    def call(pixels: torch.Tensor) -> torch.Tensor:
        order = torch.randperm(weight.shape[1], generator=draws)
        return pixels.flatten(1)[:, order] @ weight[:, order].T

    one, two = call(images(16)), call(images(16))
    assert not torch.equal(one, two)
    assert check_behaviour(call, (16, 16), "sums") == 3
