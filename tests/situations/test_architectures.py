"""Models as people really have them: own networks and heads, tied weights, tensors under other names, leftovers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

import mergerisk as mr
from mergerisk import api
from mergerisk.audit import audit
from mergerisk.cli.study_words import describe_plan, outline
from mergerisk.finetuning import FineTuning, fine_tune
from mergerisk.models import Classifier, Encoder, Head, load_encoder, load_expert
from mergerisk.models.sources.classifiers import load_classifier
from mergerisk.models.sources.hub import _wanted
from mergerisk.models.sources.reading import names_on_disk
from mergerisk.recipe import load_recipe, merge_checkpoints
from tests.models.material import (
    classifier,
    drawn,
    images,
    save_bare,
    save_classifier,
    scaled,
    write_preprocessor,
)
from tests.situations.own_network import Network
from tests.situations.situation import Situation, refusal
from tests.tiny import tiny_task

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 24
NETWORK = "tests.situations.own_network:network"
STRIPED = ("across", "down", "both")


def own(seed: int) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Network()
    drawn(made, 0, 0.3)
    return drawn(made, seed, 0.2) if seed else made  # type: ignore[return-value]


def arrays(seed: int = 0, count: int = 72) -> dict[str, np.ndarray[Any, Any]]:
    """Images of random colours, of three classes, a third each for training, the test and calibration."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pictures = random.integers(0, 256, (count, 1, 1, 3)) + random.integers(-40, 40, (count, SIDE, SIDE, 3))
    split = np.repeat([0, 1, 2], count // 3)
    return {"images": pictures.clip(0, 255).astype(np.uint8), "labels": labels, "split": split}


def head(seed: int, classes: int = 3, **options: Any) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed + 4)
    made = {"weight": torch.randn(classes, 6, generator=draws), "bias": torch.randn(classes, generator=draws) / 4}
    return {options.get("prefix", "") + name: tensor for name, tensor in made.items()}


def material(folder: Path, **changes: Any) -> Path:
    """A study of a user's own network: base, two experts, two heads, and a merge made elsewhere, all from files."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, task in enumerate(("one", "two")):
        np.savez(folder / f"{task}.npz", **arrays(seed), class_names=np.array(STRIPED))
        save_model(own(seed + 1), str(folder / f"{task}.safetensors"))
        save_file(head(seed, prefix="fc." if seed else ""), folder / f"{task}-head.safetensors")
    save_model(own(0), str(folder / "base.safetensors"))
    save_model(own(3), str(folder / "elsewhere.safetensors"))
    content: dict[str, Any] = {
        "backbone": f"{NETWORK}@base.safetensors",
        "image_size": SIDE,
        "tasks": ["one.npz", "two.npz"],
        "heads": {"from": "files", "files": {task: f"{task}-head.safetensors" for task in ("one", "two")}},
        "experts": {"from": "files", "files": {task: f"{task}.safetensors" for task in ("one", "two")}},
        "merging": ["weight_averaging", "ties"],
        "targets": [{"label": "elsewhere", "encoder": "elsewhere.safetensors"}],
        "attacks": ["fgsm"],
        "budgets": {"epsilon": ["4/255"]},
        "images_per_task": 6,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content | changes))
    return folder / "study.yaml"


AUDIT: dict[str, Any] = {
    "base": f"{NETWORK}@base.safetensors",
    "image_size": SIDE,
    "ingredients": {task: f"{task}.safetensors" for task in ("one", "two")},
    "merged": "elsewhere.safetensors",
    "candidates": ["weight_averaging"],
    "images": {task: f"{task}.npz" for task in ("one", "two")},
    "heads": {"from": "files", "files": {task: f"{task}-head.safetensors" for task in ("one", "two")}},
    "attacks": ["fgsm"],
    "budgets": {"epsilon": ["4/255"]},
    "images_per_task": 6,
}


def predictions(task: str, model: nn.Module) -> list[int]:
    """What a network says under a task's head of its test images, without any of mergerisk."""
    seed = ("one", "two").index(task)
    found = arrays(seed)
    pixels = torch.from_numpy(found["images"][found["split"] == 1]).permute(0, 3, 1, 2) / 255
    layer = head(seed)
    with torch.no_grad():
        return (model(pixels) @ layer["weight"].T + layer["bias"]).argmax(dim=1).tolist()


def right_predictions(elsewhere: str) -> dict[tuple[str, str], list[int]]:
    return {
        (task, model): predictions(task, own(which))
        for seed, task in enumerate(("one", "two"))
        for model, which in (("pretrained", 0), ("expert", seed + 1), (elsewhere, 3))
    }


def kept_predictions(folder: Path) -> dict[tuple[str, str], list[int]]:
    clean = pd.read_parquet(folder / "clean.parquet").sort_values("image")
    return {
        (str(task), str(model)): rows["prediction"].tolist()
        for (task, model), rows in clean.groupby(["task", "model"], observed=True)
    }


def test_a_study_of_somebodys_own_network_measures_what_the_network_does(tmp_path: Path) -> None:
    mr.run(material(tmp_path), tmp_path / "out")
    found, right = kept_predictions(tmp_path / "out"), right_predictions("elsewhere")
    assert len({tuple(values) for values in right.values()}) == len(right), "models that nothing tells apart"
    assert all(len(set(values)) > 1 for values in right.values()), "a model that always says the same"
    assert {name: found[name] for name in right} == right
    assert found.keys() - right.keys() == {
        (task, method) for task in ("one", "two") for method in ("weight_averaging", "ties")
    }


def test_an_audit_of_somebodys_own_network_measures_what_the_network_does(tmp_path: Path) -> None:
    material(tmp_path)
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(AUDIT))
    audit(tmp_path / "audit.yaml", tmp_path / "out")
    found, right = kept_predictions(tmp_path / "out"), right_predictions("merged")
    assert {name: found[name] for name in right} == right


class Tied(nn.Module):
    """Two layers of one weight."""

    image_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(192, 192, bias=False), nn.Linear(192, 192)
        self.b.weight = self.a.weight
        draws = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draws) / 14)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.b(torch.relu(self.a(pixels.flatten(1))))
        return found


def tied_encoder() -> Encoder:
    return Encoder(Tied(), width=192, image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3).eval()


def fine_tuned_ties(_: Path) -> bool:
    """A plain loop of the same steps on the module itself, which keeps its weights tied, ends where ours does."""
    base = tied_encoder()
    task = tiny_task(count=16)
    layer = Head(torch.randn(4, 192, generator=torch.Generator().manual_seed(1)), torch.zeros(4))
    recipe = FineTuning(epochs=1, batch_size=16, learning_rate=0.001, weight_decay=0.0)
    expert = fine_tune(base, layer, task, recipe=recipe)
    model = Classifier(tied_encoder(), layer).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.encoder.backbone.parameters(), lr=0.001, weight_decay=0.0)
    F.cross_entropy(model(task.train.images), task.train.labels).backward()
    optimizer.step()
    for name, tensor in model.encoder.state().items():
        torch.testing.assert_close(expert.state()[name], tensor)
    return expert.state()["a.weight"].data_ptr() == expert.state()["b.weight"].data_ptr()


def merge(folder: Path, experts: list[str], base: str = "base", method: str = "dare", exclude: str = "") -> Any:
    content = {"base": base, "experts": experts, "method": method, "exclude": [exclude] if exclude else []}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    out = merge_checkpoints(load_recipe(folder / "recipe.yaml"), folder / "out", force=(folder / "out").exists())
    return load_file(out / "model.safetensors")


def saved_once(folder: Path) -> list[bool]:
    """Merged and loaded as a whole: dare draws once for a tensor, whatever it is called."""
    for seed, name in enumerate(("base", "one", "two")):
        save_model(drawn(Tied(), seed + 1, 0.1), str(folder / f"{name}.safetensors"))
    merged = merge(folder, ["one.safetensors", "two.safetensors"], "base.safetensors")
    with safe_open(folder / "out" / "model.safetensors", "pt") as opened:
        aliases = {name: kept for name, kept in opened.metadata().items() if kept in merged}
    model = Tied()
    load_model(model, folder / "out" / "model.safetensors")
    expert = load_expert(tied_encoder(), folder / "one.safetensors").state()
    return [
        aliases == {"b.weight": "a.weight"},
        torch.equal(model.b.weight, merged["a.weight"]),
        torch.equal(expert["b.weight"], load_file(folder / "one.safetensors")["a.weight"]),
    ]


def untied(folder: Path) -> list[str]:
    state = {name: tensor.clone() for name, tensor in Tied().state_dict().items()}
    save_file(state | {"b.weight": state["b.weight"] + 1}, folder / "untied.safetensors")
    save_model(Tied(), str(folder / "base.safetensors"))
    return [
        re.sub(r".*: (?='b)", "", refusal(call))
        for call in (
            lambda: load_expert(tied_encoder(), folder / "untied.safetensors"),
            lambda: merge(folder, ["untied.safetensors"], "base.safetensors", "weight_averaging"),
        )
    ]


def one_of_two_names(folder: Path) -> bool:
    """transformers leaves out tied tensors without saying so."""
    state = Tied().state_dict()
    save_file({"b.bias": state["b.bias"], "b.weight": state["b.weight"] + 1}, folder / "half.safetensors")
    found = load_expert(tied_encoder(), folder / "half.safetensors").state()
    return torch.equal(found["a.weight"], state["b.weight"] + 1)


def leftovers(folder: Path) -> list[bool]:
    """A merged model with the adapter that was merged into it, and one with its configuration alone."""
    base, whole = (save_classifier(folder / name, "vit", seed) for seed, name in enumerate(("base", "whole")))
    expected = load_file(whole / "model.safetensors")
    (whole / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    alone = merge(folder, ["whole"], method="weight_averaging")
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(4, 4)}, whole / "adapter_model.safetensors")
    beside = merge(folder, ["whole"], method="weight_averaging")
    expert = load_expert(load_encoder(str(base)), whole)
    images_of = classifier(whole, "vit").vit(pixel_values=scaled(images())).last_hidden_state[:, 0]
    return [
        all(torch.equal(alone[name], expected[name]) for name in expected),
        all(torch.equal(beside[name], expected[name]) for name in expected),
        torch.allclose(expert(images()), images_of, atol=1e-5),
    ]


def not_merged(folder: Path) -> list[str]:
    """What transformers and PEFT take for a base with an adapter to be put on top."""
    whole = save_classifier(folder / "base", "vit")
    (whole / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(4, 4)}, whole / "adapter_model.safetensors")
    return [
        re.sub(r".*base: |;.*", "", refusal(call))
        for call in (lambda: load_expert(load_encoder(str(whole)), whole), lambda: merge(folder, ["base"]))
    ]


def seen_by_peft(folder: Path) -> list[bool]:
    """Whether transformers, which would put it on top, is shown the adapter beside a backbone or a classifier."""
    whole, shown = save_classifier(folder / "whole", "vit"), []
    (whole / "adapter_config.json").write_text("{}")

    def look(place: Path, download: Any, **rest: Any) -> tuple[None, Path, dict[str, Any]]:  # noqa: ARG001
        shown.append((Path(place) / "adapter_config.json").exists())
        return None, place, rest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.modeling_utils.maybe_load_adapters", look)
        load_encoder(str(whole))
        load_classifier(str(whole))
    return shown


def masks_checked(folder: Path) -> list[bool]:
    model = save_bare(folder / "mae", "vit_mae")
    write_preprocessor(model, image_processor_type="ViTImageProcessor")
    for number in range(2):
        picture = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")
    return [reading.agreeing == reading.images for reading in mr.check(str(model), folder).readings]


REPOSITORY = ["config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors"]


def names_in_memory(folder: Path) -> list[bool]:
    """Merged from a state dict, from an encoder's state, and onto a base whose names are those in memory."""
    for seed, name in enumerate(("base", "one", "two")):
        save_classifier(folder / name, "vit", seed)
    right = merge(folder, ["one", "two"])
    model = classifier(folder / "one", "vit")
    save_file({n: t.clone() for n, t in model.state_dict().items()}, folder / "memory.safetensors")
    save_file(
        {n: t.clone() for n, t in load_encoder(str(folder / "one")).state().items()}, folder / "ours.safetensors"
    )
    assert load_file(folder / "memory.safetensors").keys() != right.keys()
    found = [
        merge(folder, ["memory.safetensors", "two"]),
        merge(folder, ["ours.safetensors", "two"], exclude="classifier.*"),
    ]
    without = merge(folder, ["one", "two"], exclude="classifier.*")
    base = classifier(folder / "base", "vit").state_dict()
    save_file({n: t.clone() for n, t in base.items()}, folder / "base.safetensors")
    turned = merge(folder, ["one", "two"], "base.safetensors", "weight_averaging")
    mean = merge(folder, ["one", "two"], method="weight_averaging")
    renamed = names_on_disk(model)
    return [
        all(torch.equal(found[0][name], right[name]) for name in right),
        all(torch.equal(found[1][name], without[name]) for name in right),
        all(torch.equal(turned[name], mean[renamed[name]]) for name in base),
    ]


def names_without_a_configuration(folder: Path) -> str:
    for seed, name in enumerate(("base", "one")):
        save_classifier(folder / name, "vit", seed)
    state = classifier(folder / "one", "vit").state_dict()
    save_file({n: t.clone() for n, t in state.items()}, folder / "one.safetensors")
    (folder / "bare").mkdir()
    shutil.copy(folder / "base" / "model.safetensors", folder / "bare" / "base.safetensors")
    said = refusal(lambda: merge(folder, ["one.safetensors"], "bare/base.safetensors"))
    merge(folder, ["one.safetensors"], "base")  # the advice, followed
    return said


def bad_head(content: dict[str, torch.Tensor]) -> Callable[[Path], str]:
    def measure(folder: Path) -> str:
        study = material(folder)
        save_file(content, folder / "one-head.safetensors")
        return refusal(lambda: api.validate(study))

    return measure


def changed(**changes: Any) -> Callable[[Path], str]:
    return lambda folder: refusal(lambda: api.validate(material(folder, **changes)))


def plan_text(folder: Path) -> str:
    made, kept = api.plan(material(folder), folder / "out")
    return describe_plan(made, outline(made, kept))


SITUATIONS = (
    Situation("fine-tuning a network of tied weights trains them as one", fine_tuned_ties, True),
    Situation("what save_model kept once is found under all its names, and merged once", saved_once, [True] * 3),
    Situation(
        "an expert whose tied weights have come apart is refused, by name",
        untied,
        [
            "'b.weight' is not 'a.weight', though they are one tensor in the base; untie them in the base, or tie "
            f"them in the {what}"
            for what in ("checkpoint", "expert")
        ],
    ),
    Situation("one of two names is enough of a tied tensor", one_of_two_names, True),
    Situation("a merged model beside its adapter's files is the merged model", leftovers, [True] * 3),
    Situation(
        "a base beside an adapter that was never merged into it is refused as an expert",
        not_merged,
        ["its model is the base itself, and the adapter beside it (adapter_config.json) is not merged into it"]
        * 2,
    ),
    Situation("transformers never puts an adapter on top of a whole model", seen_by_peft, [False, False]),
    Situation("a masked autoencoder is checked with every patch shown", masks_checked, [True]),
    Situation(
        "of a repository with both, both are downloaded",
        lambda _: sorted(_wanted("org/name", REPOSITORY)),
        sorted(REPOSITORY),
    ),
    Situation(
        "of a repository with an adapter, the adapter is",
        lambda _: sorted(_wanted("org/name", [REPOSITORY[0], *REPOSITORY[2:]])),
        sorted([REPOSITORY[0], *REPOSITORY[2:]]),
    ),
    Situation("tensors under transformers' names in memory are merged", names_in_memory, [True] * 3),
    Situation(
        "without any configuration the names are said to be other names, and what helps",
        names_without_a_configuration,
        re.compile("under other names, such as .* give the base as the folder with its config.json"),
    ),
    Situation(
        "a head for other classes",
        bad_head(head(0, classes=4)),
        re.compile(
            r"heads: head of .*one-head.safetensors: 4 classes, task 'one' has 3; give the head of this task"
        ),
    ),
    Situation(
        "a head for other features",
        bad_head({"weight": torch.zeros(3, 5)}),
        re.compile("one-head.safetensors: for 5 features, the backbone gives 6"),
    ),
    Situation(
        "a head that is no linear layer",
        bad_head({"a.weight": torch.zeros(3, 6), "b.weight": torch.zeros(3, 6)}),
        re.compile(r"must hold a linear layer, .* holds 'a.weight', 'b.weight'$"),
    ),
    Situation(
        "a head with a bias of another length",
        bad_head(head(0) | {"bias": torch.zeros(2)}),
        re.compile(r"'bias' is float32 of shape \(2,\)"),
    ),
    Situation(
        "a head of NaN",
        bad_head(head(0) | {"bias": torch.full((3,), torch.nan)}),
        re.compile("'bias' holds NaN or infinity"),
    ),
    Situation(
        "a head without a bias",
        bad_head({"weight": head(0)["weight"]}),
        re.compile("^accepted: "),
    ),
    Situation(
        "a task without a head",
        changed(heads={"from": "files", "files": {"one": "one-head.safetensors"}}),
        re.compile("heads.files: task 'two' has none; give the file with its head"),
    ),
    Situation(
        "a pickled head",
        changed(heads={"from": "files", "files": {"one": "one-head.safetensors", "two": "two-head.pt"}}),
        re.compile("heads: .*two-head.pt: pickled weights are not read"),
    ),
    Situation(
        "a network that has no size of its own, and none in the study",
        changed(image_size=None),
        re.compile("image_size is None; set it"),
    ),
    Situation(
        "the plan says that nothing is done to an own network's pixels",
        plan_text,
        re.compile(r"pixels of \S+own_network:network@\S+ and of what is made from it: in \[0, 1\] as they are"),
    ),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_situations(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)
