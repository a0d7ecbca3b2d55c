"""Merging checkpoints as people have them, and the recipes that they have written for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

from mergerisk import merging
from mergerisk.cli.main import cli
from mergerisk.models import load_encoder, load_expert
from mergerisk.models.sources.experts import expert_identity
from mergerisk.recipe import load_recipe, merge_checkpoints, parse_recipe
from tests.recipe.models import HEADS, State, encoder_states, save_models
from tests.situations.situation import Situation, refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADED = {"model": "cars", "model_ema": "mnist"}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 20,
    "projection_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def recipe_of(base: Path, *experts: Path | str, **fields: Any) -> dict[str, Any]:
    return {"base": str(base), "experts": list(map(str, experts)), "method": "weight_averaging"} | fields


def one_result_per_seed(folder: Path) -> bool:
    """The same draws on disk, under the names in a file, and in memory, under transformers'."""
    save_models(folder)
    experts = {name: str(folder / name) for name in HEADS}
    recipe = {"base": str(folder / "base"), "experts": experts, "method": "dare", "seed": 5}
    out = merge_checkpoints(parse_recipe(recipe), folder / "out")

    base = load_encoder(str(folder / "base"))
    tuned = {name: load_expert(base, path) for name, path in experts.items()}
    in_memory = merging.create("dare").merge(base, tuned, seed=5).encoder.state()
    on_disk = load_file(out / "model.safetensors")
    assert in_memory.keys() != on_disk.keys()
    read = load_expert(base, out).state()
    plain = merging.merge_state_dicts("dare", *encoder_states(folder), seed=5)
    return all(torch.equal(tensor, read[name]) for name, tensor in in_memory.items()) and all(
        torch.equal(tensor, on_disk[name]) for name, tensor in plain.items()
    )


def whole_clip(folder: Path) -> str:
    """The base of FusionBench's experts, and two of them: files of vision towers."""
    config = CLIPConfig(
        vision_config=VISION | {"projection_dim": 8},
        text_config=TEXT,
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder / "clip")
        for name in ("a", "b"):
            CLIPVisionModel(config.vision_config).save_pretrained(folder / name)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(folder / "clip", folder / "a", folder / "b")))
    return str(folder / "recipe.yaml")


def a_tower_of_a_whole_clip(folder: Path) -> str:
    """What the command says, once it has done what it says."""
    done = CliRunner().invoke(cli, ["merge", whole_clip(folder), "--out", str(folder / "out")])
    base, a, b, merged = (load_file(folder / name / "model.safetensors") for name in ("clip", "a", "b", "out"))
    assert merged.keys() == base.keys()
    for name, tensor in merged.items():
        inside = name if name in a else name.removeprefix("vision_model.")  # the latter since transformers 5
        right = (a[inside] + b[inside]) / 2 if name.startswith("vision_model.") else base[name]
        torch.testing.assert_close(tensor, right)
    assert not any(CLIPModel.from_pretrained(folder / "out", output_loading_info=True)[1].values())
    assert "since no expert has them: `logit_scale`" in (folder / "out" / "README.md").read_text()
    return done.output


def a_tower_that_was_cut_short(folder: Path) -> str:
    recipe = whole_clip(folder)
    for name in ("a", "b"):
        state = load_file(folder / name / "model.safetensors")
        kept = {key: tensor for key, tensor in state.items() if "post_layernorm" not in key}
        save_file(kept, folder / name / "model.safetensors")
    return refusal(lambda: merge_checkpoints(load_recipe(recipe), folder / "out"))


def an_encoder_that_was_cut_short(folder: Path) -> str:
    save_models(folder)
    state = load_file(folder / "base" / "model.safetensors")
    kept = {key: tensor for key, tensor in state.items() if not key.startswith("layernorm")}
    save_file(kept, folder / "cut.safetensors")
    recipe = parse_recipe(recipe_of(folder / "base", folder / "cut.safetensors"))
    return refusal(lambda: merge_checkpoints(recipe, folder / "out"))


def twins(folder: Path) -> dict[str, State]:
    """A checkpoint with two copies of the weights, beside a base; the copies by their prefixes."""
    save_models(folder)
    copies = {f"{name}.": load_file(folder / HEADED[name] / "model.safetensors") for name in HEADED}
    both = {f"{prefix}{key}": tensor for prefix, state in copies.items() for key, tensor in state.items()}
    save_file(both, folder / "two.safetensors")
    return copies


def two_copies(folder: Path) -> str:
    twins(folder)
    recipe = parse_recipe(recipe_of(folder / "base", folder / "two.safetensors"))
    return refusal(lambda: merge_checkpoints(recipe, folder / "out"))


def the_chosen_copy(folder: Path) -> bool:
    """Merged, read as an expert, and made again from the recipe that was written: the same copy."""
    copies = twins(folder)
    spec = f"{folder / 'two.safetensors'}#model_ema"
    out = merge_checkpoints(parse_recipe(recipe_of(folder / "base", spec)), folder / "out")
    again = merge_checkpoints(load_recipe(out / "recipe.yaml"), folder / "again")
    assert "the one under `model_ema.`" in (out / "README.md").read_text()
    base = load_encoder(str(folder / "base"))
    expert, read = load_expert(base, spec).state(), load_expert(base, out).state()
    assert expert_identity(spec) != expert_identity(spec.replace("_ema", ""))
    return all(
        torch.equal(tensor, copies["model_ema."][f"vit.{name}"])
        and torch.equal(tensor, load_file(again / "model.safetensors")[name])
        for name, tensor in load_file(out / "model.safetensors").items()
    ) and all(torch.equal(tensor, read[name]) for name, tensor in expert.items())


def quantised(stored: torch.dtype, *, base: bool = False, **fields: Any) -> Callable[[Path], str]:
    def merge(folder: Path) -> str:
        save_models(folder)
        file = folder / ("base" if base else "cars") / "model.safetensors"
        state = load_file(file)
        name = next(name for name in state if name.endswith("query.weight"))
        save_file(state | {name: state[name].to(stored)}, file)
        recipe = parse_recipe(recipe_of(folder / "base", folder / "cars") | fields)
        return refusal(lambda: merge_checkpoints(recipe, folder / "out"))

    return merge


def named(config: dict[str, Any]) -> Callable[[Path], list[str]]:
    """What the experts of a mergekit configuration are called."""

    def load(folder: Path) -> list[str]:
        (folder / "mergekit.yaml").write_text(yaml.safe_dump(config))
        return list(load_recipe(folder / "mergekit.yaml").experts)

    return load


def mergekit_of(*models: str, **fields: Any) -> dict[str, Any]:
    config = {"merge_method": "task_arithmetic", "base_model": "base", "parameters": {"weight": 1.0}}
    return config | {"models": [{"model": model} for model in models]} | fields


def said_of(config: dict[str, Any]) -> Callable[[Path], str]:
    """What a mergekit configuration is refused with."""

    def load(folder: Path) -> str:
        (folder / "mergekit.yaml").write_text(yaml.safe_dump(config))
        return refusal(lambda: merge_checkpoints(load_recipe(folder / "mergekit.yaml"), folder / "out"))

    return load


SITUATIONS = (
    Situation(
        "a whole CLIP as the base, vision towers as experts",
        a_tower_of_a_whole_clip,
        re.compile("kept from the base, since no expert has them: logit_scale, text_model, text_projection"),
    ),
    Situation(
        "the same, of towers that lack a layer",
        a_tower_that_was_cut_short,
        re.compile(r'lacks tensor .*post_layernorm.* exclude: \["vision_model\.post_layernorm\.\*"\]'),
    ),
    Situation(
        "an encoder without its last layer",
        an_encoder_that_was_cut_short,
        re.compile(r'lacks tensor .layernorm.* exclude: \["layernorm\.\*"\]'),
    ),
    Situation(
        "a file with two copies of the weights",
        two_copies,
        re.compile(r"several copies of the weights .'model\.vit\.', 'model_ema\.vit\.'.; .*: PATH#model\.vit$"),
    ),
    Situation("one of its copies", the_chosen_copy, True),
    Situation(
        "an expert in int8", quantised(torch.int8), re.compile(r"holds int8: quantised weights are not read")
    ),
    Situation(
        "an expert in int8, with a dtype",
        quantised(torch.int8, dtype="float32"),
        re.compile(
            r"cars/model\.safetensors: tensor .* holds int8: quantised weights .* give the model in float32"
        ),
    ),
    Situation("a base in int8", quantised(torch.int8, base=True), re.compile("base: .* holds int8: quantised")),
    Situation(
        "a sound file in float8",
        quantised(torch.float8_e4m3fn),
        re.compile("holds F8_E4M3: quantised weights are not read"),
    ),
    Situation(
        "mergekit's paths, which no folder may be called",
        named(mergekit_of("./epoch=9-step=1000", "./model (1)", "C:\\models\\A", "runs/.cache/")),
        ["epoch-9-step-1000", "model-1", "A", "cache"],
    ),
    Situation(
        "a path of Windows",
        said_of(mergekit_of("C:\\models\\A", base_model="C:\\models\\Base")),
        re.compile(r"base: 'C:.*Base': no such file or folder here; it is a path of Windows"),
    ),
    Situation(
        "mergekit's base_model with an adapter",
        said_of(mergekit_of("org/a", base_model="org/base+org/lora")),
        re.compile(r"base_model: 'org/base\+org/lora' has an adapter, .*: merge it into org/base with PEFT"),
    ),
    Situation("DARE with one seed: in mergerisk merge, in a study, in Python", one_result_per_seed, True),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_what_people_merge(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)
