"""Advice, followed to the letter: what a message says to write gets its reader further."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from mergerisk.crafting import Crafting, parse_epsilon, parse_settings
from mergerisk.models import load_encoder
from mergerisk.recipe import merge_checkpoints, parse_recipe
from mergerisk.recipe.mergekit import translate
from mergerisk.statistics.columns import recognise
from mergerisk.tasks.loading import task_source
from tests.recipe.models import save_models
from tests.recipe.test_merging import PEFT
from tests.situations.situation import refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Content = dict[str, Any]


@dataclass(frozen=True)
class Advice:
    """A mistake, and what its message makes of it.

    Attributes:
        words: the mistake; the test's name.
        given: makes what is at fault, in an empty folder.
        says: pattern of the message, whose groups are the advice.
        follow: what was given, changed as the groups say.
        attempt: does with it what its user would.
        then: pattern of what comes of it; ``done`` where that is the end.
    """

    words: str
    given: Callable[[Path], Any]
    says: str
    follow: Callable[[Any, re.Match[str]], Any]
    attempt: Callable[[Path, Any], object]
    then: str = "done"

    def __str__(self) -> str:
        return self.words


def said(call: Callable[[], object]) -> str:
    text = refusal(call)
    return "done" if text.startswith("accepted: ") else text


# --- merges ----------------------------------------------------------------------------------------------


def merge(folder: Path, content: Content) -> object:
    return merge_checkpoints(parse_recipe(content), folder / "out", force=content.get("seed") == 1)


def models(change: Callable[[dict[str, torch.Tensor]], Any], base: str = "base", **fields: Any) -> Any:
    """A recipe for one expert whose tensors ``change`` has been at."""

    def make(folder: Path) -> Content:
        save_models(folder)
        file = folder / "cars" / "model.safetensors"
        state = load_file(file)
        changed = change(state)
        save_file(state if changed is None else changed, file)
        content = {"base": str(folder / base), "experts": {"cars": str(folder / "cars")}}
        return content | {"method": "weight_averaging"} | fields

    return make


def without(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    gone = ("embeddings.", "layer.1.", "layernorm.weight")
    return {name: tensor for name, tensor in state.items() if not any(part in name for part in gone)}


def adapter(folder: Path) -> Content:
    (folder / "adapter").mkdir()
    for file in (PEFT / "plain").iterdir():
        (folder / "adapter" / file.name).write_bytes(file.read_bytes())
    file = folder / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.classifier.weight": torch.ones(3, 16)}, file)
    return {"base": str(PEFT / "base"), "experts": [str(folder / "adapter")], "method": "weight_averaging"}


def exclude(content: Content, found: re.Match[str]) -> Content:
    return content | {"exclude": json.loads(found[1])}


def choose(content: Content, found: re.Match[str]) -> Content:
    return content | {"experts": {"cars": f"{content['experts']['cars']}#{found[1]}"}}


def written_before(folder: Path) -> Content:
    content: Content = models(lambda _: None)(folder)
    merge(folder, content)
    return content


EXCLUDE = r"exclude: (\[.*\])$"
MERGES = (
    ("an expert that lacks several modules", models(without), EXCLUDE, exclude),
    ("the same, with something excluded already", models(without, exclude=["*.bias"]), EXCLUDE, exclude),
    (
        "an expert with modules of its own",
        models(
            lambda s: s.update({f"vit.{name}": torch.ones(2) for name in ("pooler.a", "pooler.b", "neck.c.d")})
        ),
        EXCLUDE,
        exclude,
    ),
    ("heads of other sizes", models(lambda _: None, base="dtd"), EXCLUDE, exclude),
    ("an adapter with a head", adapter, EXCLUDE, exclude),
    (
        "two copies of the weights",
        models(lambda s: {f"{prefix}.{name}": t.clone() for prefix in ("a", "b") for name, t in s.items()}),
        r"PATH#(\S+)$",
        choose,
    ),
    (
        "an expert in half precision",
        models(lambda s: {name: tensor.half() for name, tensor in s.items()}),
        r"as in dtype: (float32)",
        lambda content, found: content | {"dtype": found[1]},
    ),
    (
        "a merge beyond half precision",
        models(lambda _: None, coefficients=[1e6], dtype="float16"),
        r"set dtype in the recipe to bfloat16 or (float32)$",
        lambda content, found: content | {"dtype": found[1]},
    ),
    (
        "a merge beyond float32",
        models(lambda _: None, coefficients=[3.39e38], dtype="float32"),
        r"lower `(\w+)`, or",
        lambda content, found: content | {found[1]: [1.0]},
    ),
    (
        "layers that differ, of a method that ranks them together",
        models(lambda _: None, method="ties", layers={"encoder.layer.0.*": {"density": 0.5}}),
        r"set (trim): (per_tensor)$",
        lambda content, found: content | {found[1]: found[2]},
    ),
    (
        "a folder that an earlier merge wrote",
        written_before,
        r"replace an earlier merge with (--force)$",
        lambda content, _: content | {"seed": 1},  # with which `merge` forces it
    ),
)


# --- others ----------------------------------------------------------------------------------------------

RATES = {"task": ["mnist"], "attack": ["fgsm"], "surrogate": ["expert"], "target": ["ties"], "asr": [0.5]}


def renamed(old: str) -> Callable[[Content, re.Match[str]], Content]:
    return lambda content, found: {found[1] if name == old else name: value for name, value in content.items()}


def attack(_: Path, settings: list[str]) -> object:
    given = dict(zip(settings[::2], settings[1::2], strict=True))
    epsilon = parse_epsilon(given.get("--epsilon", "8/255"))
    chosen = parse_settings([value for name, value in given.items() if name == "--set"])
    return Crafting(parameters=chosen, epsilon=epsilon).create_attack()


def timm_folder(folder: Path) -> str:
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 10}))
    save_file({"fc.weight": torch.ones(2, 2)}, folder / "model.safetensors")
    return str(folder)


def mergekit(**fields: Any) -> Callable[[Path], Content]:
    base = {"merge_method": "linear", "models": [{"model": "org/a", "parameters": {"weight": 1}}]}
    return lambda _: base | fields


def dropped(content: Content, found: re.Match[str]) -> Content:
    return {name: value for name, value in content.items() if name != found[1]}


TABLE = (
    *(Advice(words, given, says, follow, merge) for words, given, says, follow in MERGES),
    Advice(
        "accuracy in percent",
        lambda _: RATES | {"accuracy": [90.1]},
        r"name it so: (\w+)$",
        renamed("accuracy"),
        lambda _, content: recognise(pd.DataFrame(content), "t.csv"),
    ),
    Advice(
        "a rate with its sign",
        lambda _: RATES | {"asr": ["56.7%"]},
        r"write the numbers alone, and name the column …(_percent)$",
        lambda content, found: (
            {name: value for name, value in content.items() if name != "asr"} | {f"asr{found[1]}": [56.7]}
        ),
        lambda _, content: recognise(pd.DataFrame(content), "t.csv"),
    ),
    Advice(
        "a budget among an attack's hyper-parameters",
        lambda _: ["--set", "eps=8/255"],
        r"(--epsilon) (\S+) on the command line",
        lambda _, found: [found[1], found[2]],
        attack,
    ),
    Advice(
        "a dataset of the hub without hub:",
        lambda _: "org/name",
        r"written (hub:\S+)$",
        lambda _, found: found[1],
        lambda _, spec: task_source(spec),
    ),
    Advice(
        "a model of timm without timm:",
        timm_folder,
        r"write (timm:\S+)$",
        lambda _, found: found[1],
        lambda _, spec: load_encoder(spec),
        then=r"done|^timm is not installed.*pip install 'mergerisk\[timm\]'$|it needs a torchvision",
    ),
    Advice(
        "mergekit's tokenizers",
        mergekit(tokenizer_source="union"),
        r"mergekit's '(\w+)' .*; remove it$",
        dropped,
        lambda _, content: translate(content),
    ),
    Advice(
        "mergekit's models and slices",
        mergekit(slices=[]),
        r"models, (slices): give one of them$",
        dropped,
        lambda _, content: translate(content),
    ),
)


@pytest.mark.parametrize("advice", TABLE, ids=str)
def test_advice_gets_one_further(advice: Advice, tmp_path: Path) -> None:
    given = advice.given(tmp_path)
    message = said(lambda: advice.attempt(tmp_path, given))
    found = re.search(advice.says, message)
    assert found, message
    followed = said(lambda: advice.attempt(tmp_path, advice.follow(given, found)))
    assert re.search(advice.then, followed), followed
