"""Hyper-parameters by layer, and mergekit's lists of numbers, slices and files of several merges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mergerisk.errors import UserError
from mergerisk.recipe import load_merges, load_recipe, merge_checkpoints, parse_recipe
from mergerisk.recipe.layers import count_layers

if TYPE_CHECKING:
    from pathlib import Path

State = dict[str, torch.Tensor]

LAYERS = 3
NAMES = (
    "embeddings.weight",
    *(f"encoder.layer.{i}.{n}" for i in range(LAYERS) for n in ("a.weight", "b")),
    "norm",
)


@pytest.fixture
def states(tmp_path: Path) -> dict[str, State]:
    """A base and two experts of three layers, saved beside one another."""
    draws = torch.Generator().manual_seed(0)
    found = {}
    for name in ("base", "one", "two"):
        found[name] = {tensor: torch.randn(6, generator=draws) for tensor in NAMES}
        save_file(found[name], tmp_path / f"{name}.safetensors")
    return found


def merged(folder: Path, content: dict[str, Any]) -> State:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    out = merge_checkpoints(load_recipe(folder / "recipe.yaml"), folder / "out")
    written = load_file(out / "model.safetensors")
    again = load_file(merge_checkpoints(load_recipe(out / "recipe.yaml"), folder / "again") / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in written.items())
    return written


def mergekit(method: str, one: Any, two: Any, **fields: Any) -> dict[str, Any]:
    models = [
        {"model": "./one.safetensors", "parameters": one},
        {"model": "./two.safetensors", "parameters": two},
    ]
    return {"merge_method": method, "base_model": "./base.safetensors", "models": models} | fields


def read_at(values: Any, t: float) -> float:
    """A list of numbers at t, as mergekit reads it."""
    if not isinstance(values, list):
        return float(values)
    scaled = t * (len(values) - 1)
    i0 = int(scaled)
    i1 = min(len(values) - 1, i0 + 1)
    return (1 - (scaled - i0)) * values[i0] + (scaled - i0) * values[i1]


def depth(name: str, first: int = 0, layers: int = LAYERS) -> float:
    """mergekit's t: 0 outside of layers, else from a slice's first layer to its last; 1 of a single one."""
    number = next((int(part) for part in name.split(".") if part.isdecimal()), None)
    if number is None:
        return 0.0
    return (number - first) / (layers - 1) if layers > 1 else 1.0


@pytest.mark.parametrize("values", [[0.1, 0.9], [1.0, 0.0, 0.5], [0.2, 0.4, 0.6, 0.8], [0.7], 0.3, [0, 1]])
def test_a_list_of_numbers_is_read_at_the_depth_of_each_layer(
    tmp_path: Path, states: dict[str, State], values: Any
) -> None:
    found = merged(tmp_path, mergekit("task_arithmetic", {"weight": values}, {"weight": 0.5}))
    for name in NAMES:
        base, one, two = (states[which][name].double() for which in ("base", "one", "two"))
        right = base + read_at(values, depth(name)) * (one - base) + 0.5 * (two - base)
        torch.testing.assert_close(found[name].double(), right, rtol=1e-6, atol=1e-6)


def test_weights_are_normalised_in_every_layer(tmp_path: Path, states: dict[str, State]) -> None:
    config = mergekit("linear", {"weight": [1, 3]}, {"weight": [2, 0, 1]})
    del config["base_model"]
    found = merged(tmp_path, config)
    for name in NAMES:
        weights = [read_at(values, depth(name)) for values in ([1, 3], [2, 0, 1])]
        one, two = (states[which][name].double() for which in ("one", "two"))
        right = (weights[0] * one + weights[1] * two) / sum(weights)
        torch.testing.assert_close(found[name].double(), right, rtol=1e-6, atol=1e-6)


def sources(first: int, last: int, one: Any = None) -> list[dict[str, Any]]:
    own = {} if one is None else {"parameters": {"weight": one}}
    return [
        {"model": "./one.safetensors", "layer_range": [first, last], **own},
        {"model": "./two.safetensors", "layer_range": [first, last], "parameters": {"weight": 0.5}},
    ]


def sliced(*slices: Any, **fields: Any) -> dict[str, Any]:
    config = {"merge_method": "task_arithmetic", "base_model": "./base.safetensors"}
    return config | {"slices": [{"sources": own} if isinstance(own, list) else own for own in slices]} | fields


def test_slices_over_all_layers(tmp_path: Path, states: dict[str, State]) -> None:
    whole = {"sources": sources(0, 2), "parameters": {"weight": [0.2, 0.8]}}
    found = merged(tmp_path, sliced(whole, sources(2, 3, [0.4, 0.6]), parameters={"weight": 9.0}))
    for name in NAMES:
        base, one, two = (states[which][name].double() for which in ("base", "one", "two"))
        weight = 0.6 if ".2." in name else read_at([0.2, 0.8], depth(name, 0, 2))
        right = base + weight * (one - base) + 0.5 * (two - base)
        torch.testing.assert_close(found[name].double(), right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ([sources(0, 2, 1)], "they end at layer 2, the base has 3 layers"),
        (
            [sources(0, 2, 1), sources(0, 3, 1)],
            r"slices\[1\]: layers \(0, 3\).* after 2; .* all layers in their order",
        ),
        ([sources(1, 3, 1)], r"slices\[0\]: layers \(1, 3\)"),
        ([[*sources(0, 3, 1)[:1], *sources(0, 2)[1:]]], r"slices\[0\]: layers \(0, 3\), \(0, 2\)"),
        ([sources(0, 2, 1), sources(2, 3, 1)[::-1]], r"slices\[1\]: other models than in slices\[0\]"),
        ([], "slices: must be a list of slices"),
        ([{"sources": []}], r"slices\[0\]: must have 'sources'"),
        ([[{"model": "x"}]], r"a source must have 'model' and 'layer_range'"),
        (
            [{"sources": sources(0, 3, 1), "residual_weight": 1}],
            r"slices\[0\]\.residual_weight: has no counterpart",
        ),
    ],
)
def test_other_slices_are_refused(
    tmp_path: Path, states: dict[str, State], slices: list[Any], message: str
) -> None:
    del states
    with pytest.raises(UserError, match=message):
        merged(tmp_path, sliced(*slices))
    assert not (tmp_path / "out").exists()


def test_layers_of_a_recipe(tmp_path: Path, states: dict[str, State]) -> None:
    content = {
        "base": "./base.safetensors",
        "experts": ["./one.safetensors"],
        "method": "task_arithmetic",
        "scaling": 0.5,
        "layers": {"encoder.layer.0.*": {"scaling": 0.1}, "encoder.*.b": {"scaling": 0.9}},
    }
    found = merged(tmp_path, content)
    for name in NAMES:
        scaling = 0.1 if ".0." in name else 0.9 if name.endswith(".b") else 0.5
        base, one = states["base"][name], states["one"][name]
        torch.testing.assert_close(found[name], base + scaling * (one - base))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": {"encoder.*": {"density": 0.1}}}, r"layers: encoder\.\*: density: neither a field"),
        ({"layers": {"decoder.*": {"scaling": 0.1}}}, r"layers: decoder\.\*: the pattern matches no tensor"),
        (
            {"layers": {"encoder.*": {"scaling": [1, 2]}}},
            r"layers: encoder\.\*: task_arithmetic: scaling: 2 values",
        ),
        ({"method": "ties", "layers": {"encoder.*": {"density": 0.1}}}, "set trim: per_tensor"),
        ({"method": "pcb", "layers": {"encoder.*": {"density": 0.1}}}, "looks at all layers together"),
        ({"method": "emr", "layers": {"encoder.*": {"rescale": "sum"}}}, "looks at all layers together"),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    tmp_path: Path, states: dict[str, State], fields: dict[str, Any], message: str
) -> None:
    del states
    content = {"base": "base.safetensors", "experts": ["one.safetensors"], "method": "task_arithmetic"} | fields
    with pytest.raises(UserError, match=message):
        merge_checkpoints(parse_recipe(content, tmp_path), tmp_path / "out")


def test_layers_are_counted_where_vision_models_have_them() -> None:
    names = [
        "vision_model.encoder.layers.11.mlp.fc1.weight",
        "text_model.encoder.layers.1.x",
        "blocks.2.norm.bias",
    ]
    names += ["encoder.stages.3.layers.8.dwconv.weight", "layer4.1.conv1.weight", "embeddings.cls_token"]
    assert count_layers(names) == {
        "vision_model.encoder.layers": 12,
        "text_model.encoder.layers": 2,
        "blocks": 3,
        "encoder.stages": 4,
        "layer4": 2,
    }


SEVERAL = """
name: first
merge_method: linear
models:
  - {model: ./one.safetensors, parameters: {weight: 1}}
  - {model: ./two.safetensors, parameters: {weight: 3}}
---
merge_method: task_arithmetic
base_model: ./base.safetensors
parameters: {weight: 0.5}
models:
  - model: first
"""


@pytest.mark.parametrize("backwards", [False, True])
def test_a_file_of_several_merges(tmp_path: Path, states: dict[str, State], backwards: bool) -> None:
    parts = SEVERAL.split("---")
    (tmp_path / "several.yaml").write_text("---".join(parts[::-1] if backwards else parts))
    for recipe, folder in load_merges(tmp_path / "several.yaml", tmp_path / "out"):
        merge_checkpoints(recipe, folder)
    first, last = (load_file(tmp_path / name / "model.safetensors") for name in ("out-first", "out"))
    for name in NAMES:
        base, one, two = (states[which][name] for which in ("base", "one", "two"))
        torch.testing.assert_close(first[name], (one + 3 * two) / 4)
        torch.testing.assert_close(last[name], base + 0.5 * (first[name] - base))


RECIPES = """
name: pair
base: ./base.safetensors
experts: [./one.safetensors, ./two.safetensors]
method: weight_averaging
coefficients: [0.25, 0.75]
---
name: trio
base: pair
experts: {merged: pair, one: ./one.safetensors}
method: task_arithmetic
scaling: 0.5
---
base: ./base.safetensors
experts: [pair, trio, ./two.safetensors]
method: weight_averaging
"""


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_merge_may_be_an_ingredient_of_other_recipes(
    tmp_path: Path, states: dict[str, State], order: tuple[int, ...]
) -> None:
    parts = RECIPES.split("---\n")
    (tmp_path / "several.yaml").write_text("---\n".join(parts[place] for place in order))
    merges = load_merges(tmp_path / "several.yaml", tmp_path / "out")
    assert [folder.name for _, folder in merges] == ["out-pair", "out-trio", "out"]
    assert [*merges[2][0].experts] == ["out-pair", "out-trio", "two"]
    for recipe, folder in merges:
        merge_checkpoints(recipe, folder)
    found = {name: load_file(tmp_path / name / "model.safetensors") for name in ("out-pair", "out-trio", "out")}
    for name in NAMES:
        one, two = (states[which][name] for which in ("one", "two"))
        pair = (one + 3 * two) / 4
        trio = pair + 0.5 * (one - pair)
        torch.testing.assert_close(found["out-pair"][name], pair)
        torch.testing.assert_close(found["out-trio"][name], trio)
        torch.testing.assert_close(found["out"][name], (pair + trio + two) / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[./one.safetensors, ./two.safetensors]", "[trio, pair]"), "in a circle: 'pair', 'trio'$"),
        (("[./one.safetensors, ./two.safetensors]", "[pair]"), "in a circle: 'pair'$"),
        (("name: trio", "name: pair"), "document 2: a second merge called 'pair'"),
        (("scaling: 0.5", "scalin: 0.5"), "merge 'trio': scalin: neither a field of a recipe nor"),
        (
            ("experts: [./one.safetensors, ./two.safetensors]", "experts: 3"),
            "merge 'pair': experts: must be a mapping",
        ),
    ],
)
def test_recipes_that_cannot_be_merged_together_are_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    (tmp_path / "several.yaml").write_text(RECIPES.replace(*change, 1))
    with pytest.raises(UserError, match=message) as raised:
        load_merges(tmp_path / "several.yaml", tmp_path / "out")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: first", "name: ../x"), "document 1: name: choose one that can be a folder's"),
        (("name: first\n", ""), "document 2: a second merge without a name"),
        (("./one.safetensors", "last"), "in a circle: 'first', 'last'"),
        (
            ("model: first", "model: ./one.safetensors"),
            "several merges that no other one uses; leave out the name",
        ),
        (("merge_method: linear\n", ""), "document 1: no method; in a file of several each document is a merge"),
        (("merge_method: linear", "merge_method: sce"), "merge 'first': merge_method: mergekit's 'sce'"),
    ],
)
def test_several_merges_that_cannot_be_made_are_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = SEVERAL.replace(*change, 1)
    if "circle" in message or "no other" in message:
        text = text.replace("---\n", "---\nname: last\n")
    (tmp_path / "several.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        load_merges(tmp_path / "several.yaml", tmp_path / "out")
    assert str(raised.value).startswith(f"{tmp_path / 'several.yaml'}: ")
