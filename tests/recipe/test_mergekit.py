"""mergekit's configurations: what comes out is what mergekit makes, or they are refused in one line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from mergerisk.errors import UserError
from mergerisk.recipe import load_recipe, merge_checkpoints, translate
from tests.vectors.states import SHAPES, Vectors


@cache
def vectors() -> Vectors:
    """Made by mergekit itself; see ``tests/vectors/make_mergekit_vectors.py``."""
    return Vectors.read(Path(__file__).parents[1] / "vectors" / "mergekit.safetensors")


def models(*weights: float, **parameters: Any) -> list[dict[str, Any]]:
    entries = []
    for position, weight in enumerate(weights or (None,) * 4):
        own = parameters | ({} if weight is None else {"weight": weight})
        entries.append({"model": f"./expert_{position}.safetensors", "parameters": own})
    return entries


BASE = "base.safetensors"

SAME = {
    "weight_averaging": {"merge_method": "linear", "models": models(4, 3, 2, 1)},
    "task_arithmetic": {
        "merge_method": "task_arithmetic",
        "base_model": BASE,
        # mergekit leaves the base out of what it adds up.
        "models": [{"model": BASE}, *models(0.2, 0.4, 0.6, 0.8)],
        "parameters": {"lambda": 0.5},
    },
    "ties_mean": {
        "merge_method": "ties",
        "base_model": BASE,
        "models": models(density=0.25),
        "parameters": {"weight": 0.7, "int8_mask": True},
    },
    "ties_sum": {
        "merge_method": "ties",
        "base_model": BASE,
        "models": models(),
        "parameters": {"weight": 0.6, "density": 0.25, "normalize": False, "lambda": 0.5},
    },
    "breadcrumbs": {
        "merge_method": "breadcrumbs",
        "base_model": BASE,
        "models": models(),
        "parameters": {"weight": 1.6, "density": "2.5e-1", "gamma": 0.125, "normalize": True, "lambda": 1.6},
    },
    "model_stock": {"merge_method": "model_stock", "base_model": BASE, "models": models()},
    "slerp": {
        "merge_method": "slerp",
        "base_model": "./expert_0.safetensors",
        "models": [{"model": "./expert_1.safetensors"}],
        "parameters": {"t": 0.3},
    },
}


@pytest.mark.parametrize("name", SAME)
def test_a_configuration_makes_what_mergekit_makes(tmp_path: Path, name: str) -> None:
    found = vectors()
    save_file(found.base, tmp_path / BASE)
    for position, expert in enumerate(found.experts):
        save_file(expert, tmp_path / f"expert_{position}.safetensors")
    (tmp_path / "mergekit.yaml").write_text(yaml.safe_dump(SAME[name]))
    out = merge_checkpoints(load_recipe(tmp_path / "mergekit.yaml"), tmp_path / "out")
    merged = load_file(out / "model.safetensors")
    skip = ["scale"] if name == "breadcrumbs" else []  # of which mergekit keeps nothing
    assert found.error({tensor: merged[tensor] for tensor in SHAPES}, found.merged[name], *skip) < 1e-6


def given(method: str, **fields: Any) -> dict[str, Any]:
    """A configuration of two models with weight 1."""
    two = [{"model": "org/a", "parameters": {"weight": 1}}, {"model": "org/b", "parameters": {"weight": 1}}]
    return {"merge_method": method, "base_model": "org/base", "models": two} | fields


@pytest.mark.parametrize(
    ("method", "shared", "expected"),
    [
        (
            "dare_linear",
            {"density": 0.4, "lambda": 0.5},
            {"drop_rate": 0.6, "rescale": "l1_norm", "then": "task_arithmetic", "scaling": 0.5},
        ),
        ("dare_linear", {"density": 1, "rescale": False, "normalize": True}, {"drop_rate": 0.0, "scaling": 0.5}),
        (
            "dare_ties",
            {"density": 0.4},
            {"then": "ties", "trim": "per_tensor", "density": 1.0, "variant": "sum", "scaling": 1.0},
        ),
        ("dare_ties", {"density": 0.4, "normalize": True}, {"variant": "mean", "scaling": 1.0}),
        ("breadcrumbs", {"gamma": 0.1}, {"density": 1.0, "drop_top": 0.0}),  # mergekit then drops nothing
        (
            "della",
            {"density": 0.4, "epsilon": 0.1},
            {"drop_rate": 0.6, "window": 0.2, "rescale": "l1_norm", "variant": "mean", "scaling": 1.0},
        ),
        (
            "della",
            {"density": 0.5, "normalize": False, "lambda": 0.5},
            {"window": 0.3, "variant": "sum", "scaling": 0.5},
        ),
        ("della_linear", {"density": 1, "rescale": False}, {"drop_rate": 0.0, "window": 0.0, "elect": False}),
    ],
)
def test_what_is_drawn_at_random_is_translated(
    method: str, shared: dict[str, Any], expected: dict[str, Any]
) -> None:
    parameters = translate(given(method, parameters=shared))["parameters"]
    assert {name: parameters[name] for name in expected} == pytest.approx(expected)


def test_names_dtypes_and_adapters() -> None:
    fields = {"models": [{"model": "org/base+org/lora"}, {"model": "org/b@v1"}], "parameters": {"weight": 1}}
    recipe = translate(given("ties", **fields, dtype="bfloat16", out_dtype="float16"))
    assert recipe["base"] == "org/base"
    assert recipe["experts"] == ["org/lora", "org/b@v1"]
    assert recipe["dtype"] == "float16"
    assert translate(given("ties", dtype="torch.float32"))["dtype"] == "float32"
    assert "dtype" not in translate(given("ties"))


def test_an_averaged_base_is_one_of_the_experts() -> None:
    recipe = translate(given("linear", parameters={"weight": 2}))
    assert recipe["experts"] == ["org/base", "org/a", "org/b"]
    assert recipe["parameters"]["coefficients"] == [0.5, 0.25, 0.25]


FILTERED = {"filter": "mlp", "value": 0.5}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (given("ties", slices=[]), "models, slices: give one of them"),
        (given("ties", modules={}), "'modules' has no counterpart"),
        (given("ties", tokenizer_source="union"), "tokenizers are not merged"),
        (given("ties", tokenizer={}), "tokenizers are not merged"),
        (given("ties", chat_template="auto"), "tokenizers are not merged"),
        (given("ties", base="x"), "base: unknown field of a mergekit configuration"),
        (given("sce"), "mergekit's 'sce' has no counterpart here"),
        (given(["ties"]), "has no counterpart here"),  # type: ignore[arg-type]
        (given("ties", base_model=None), "base_model: mergekit's ties needs one"),
        (given("ties", base_model={"model": "x"}), "base_model: must be a path"),
        (given("ties", models=None), "models: must be a list"),
        (given("ties", models=["org/a"]), r"models\[0\]: must have 'model'"),
        (given("ties", models=[{"model": "org/a", "weight": 1}]), r"models\[0\]\.weight: unknown field"),
        (given("ties", models=[{"model": "org/a", "parameters": [1]}]), "parameters: must be a mapping"),
        (given("linear", models=[{"model": "org/a"}] * 2), r"models\[1\]: 'org/a' is listed twice"),
        (given("ties", models=[{"model": "org/a"}]), "weight is missing for model 'org/a'"),
        (
            given("ties", models=[{"model": "org/c+org/lora"}], parameters={"weight": 1}),
            "an adapter of another model",
        ),
        (
            given("ties", parameters={"density": [0.1, "0.9"]}),
            "density: filters by name, and lists of anything but",
        ),
        (given("ties", parameters={"density": FILTERED}), "density: filters by name"),
        (given("ties", parameters={"normalize": [FILTERED]}), "normalize: filters by name"),
        (given("ties", parameters={"density": "half"}), "density: must be a number"),
        (given("ties", parameters={"normalize": 1}), "normalize: must be true or false"),
        (
            given("ties", parameters={"dencity": 1}),
            r"parameters.dencity: unknown parameter \(did you mean 'density'",
        ),
        (given("ties", parameters={"rescale": True}), "rescale: true has no counterpart"),
        (given("dare_ties", parameters={"density": 0.5, "rescale": False}), "rescale: false has no counterpart"),
        (given("breadcrumbs", parameters={"density": 0.95, "gamma": 0.1}), r"density \+ gamma exceeds 1"),
        (given("breadcrumbs", parameters={"rescale": True}), "rescale: true has no counterpart"),
        (given("model_stock", parameters={"filter_wise": True}), "filter_wise: true has no counterpart"),
        (given("model_stock", models=[{"model": "org/a"}]), "at least two besides base_model"),
        (given("slerp"), "parameters.t is missing"),
        (given("linear", base_model=None, parameters={"normalize": True}, models=models(1, -1)), "sum to 0"),
    ],
)
def test_what_has_no_counterpart_is_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        translate(config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs"])
@pytest.mark.parametrize("name", ["weight", "density"])
def test_numbers_that_differ_between_models_are_refused(method: str, name: str) -> None:
    own = [{"weight": 1, "density": 0.5}, {"weight": 1, "density": 0.5} | {name: 0.4}]
    entries = [{"model": f"org/{i}", "parameters": parameters} for i, parameters in enumerate(own)]
    with pytest.raises(UserError, match=f"{name} differs between models"):
        translate(given(method, models=entries))


def test_a_file_names_itself_in_its_errors(tmp_path: Path) -> None:
    (tmp_path / "mergekit.yaml").write_text(yaml.safe_dump(given("sce")))
    with pytest.raises(UserError, match=r"mergekit\.yaml: merge_method"):
        load_recipe(tmp_path / "mergekit.yaml")
