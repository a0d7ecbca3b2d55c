"""Recipe files: what they may hold, and one line for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mergerisk.errors import UserError
from mergerisk.recipe import Recipe, load_recipe, parse_recipe

if TYPE_CHECKING:
    from pathlib import Path

LEAST = {"base": "org/base", "experts": {"cars": "org/cars", "mnist": "org/mnist@v2"}, "method": "ties"}


def test_hyper_parameters_stand_beside_the_other_fields() -> None:
    recipe = parse_recipe(LEAST | {"density": 0.3, "seed": 7, "include": "vision_model.*"})
    assert recipe.parameters == {"density": 0.3}
    assert (recipe.seed, recipe.include, recipe.exclude, recipe.dtype) == (7, ("vision_model.*",), (), None)
    assert recipe.create_method() == parse_recipe(LEAST | {"parameters": {"density": 0.3}}).create_method()


def test_experts_of_a_list_are_called_by_their_files() -> None:
    experts = ["org/cars@main", "./runs/mnist", "x/y/z/dtd.safetensors", "other/cars"]
    recipe = parse_recipe(LEAST | {"experts": experts})
    assert list(recipe.experts) == ["cars", "mnist", "dtd", "cars-4"]


def test_no_expert_of_a_list_takes_anothers_name() -> None:
    recipe = parse_recipe(LEAST | {"experts": ["p/a-3", "q/a", "r/a"]})
    assert recipe.experts == {"a-3": "p/a-3", "a": "q/a", "a-4": "r/a"}


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "recipes" / "recipe.yaml"
    file.write_text(yaml.safe_dump(LEAST | {"base": "base", "experts": {"a": "../gone", "b": "org/b", "c": "/c"}}))
    recipe = load_recipe("recipes/recipe.yaml")
    assert recipe.base == str(tmp_path / "recipes" / "base")
    assert recipe.experts == {"a": str(tmp_path / "gone"), "b": "org/b", "c": "/c"}


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    recipe = parse_recipe(LEAST | {"density": 0.3, "dtype": "bfloat16", "exclude": ["head.*"]})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": None}, "base: "),
        ({"base": ""}, "base: "),
        ({"experts": {}}, "experts: "),
        ({"experts": []}, "experts: "),
        ({"experts": {"a": 1}}, "experts.a: "),
        ({"experts": {"a": ""}}, "expert 'a': give a folder"),
        ({"experts": {"../a": "x"}}, "expert '../a': choose a name that can be a folder's"),
        ({"experts": {"..": "x"}}, "choose a name"),
        ({"experts": {"": "x"}}, "choose a name"),
        ({"experts": {"README.md": "x"}}, "expert 'README.md': a merge writes a file of that name"),
        ({"method": "tise"}, r"unknown merging method 'tise' \(did you mean 'ties'"),
        ({"method": ["ties"]}, "method: "),
        ({"method": "regmean"}, "method: regmean reads images; run it in a study"),
        ({"method": "ties+surgery"}, r"method: ties\+surgery reads images"),
        ({"density": 2}, "density: "),
        ({"density": True, "trim": "none"}, "'ties': "),
        (
            {"dencity": 0.2},
            r"dencity: neither a field of a recipe nor a hyper-parameter of ties \(did you mean 'density'",
        ),
        ({"exlude": ["a"]}, r"exlude: neither a field of a recipe .* \(did you mean 'exclude'"),
        ({"parameters": {}, "density": 0.2}, "density: unknown field"),
        ({1: 2}, "key 1 must be text"),
        ({"dtype": "int8"}, "dtype: "),
        ({"include": [""]}, r"include\[0\]: "),
        ({"seed": -1}, "seed: "),
    ],
)
def test_what_is_wrong_is_one_line(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        parse_recipe(LEAST | change)
    assert "\n" not in str(raised.value)


def test_a_field_that_is_missing_is_named() -> None:
    for name in LEAST:
        with pytest.raises(UserError, match=f"{name}: required"):
            parse_recipe({key: value for key, value in LEAST.items() if key != name})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: [", r"recipe\.yaml, line 1: not valid YAML"),
        ("- a", "a recipe is a mapping of fields, got list"),
        ("", "nothing is in it"),
        ("{base: x, method: ties}", r"recipe\.yaml: experts: required"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        load_recipe(tmp_path / "recipe.yaml")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml: no such file"):
        load_recipe(tmp_path / "gone.yaml")
    with pytest.raises(UserError, match="a folder"):
        load_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not valid YAML"):
        load_recipe(tmp_path / "recipe.yaml")


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe.model_validate(LEAST).seed = 1  # type: ignore[misc]
