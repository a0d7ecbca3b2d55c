"""Merging checkpoints on disk: the same numbers as in memory, whole folders or none, one line per mistake."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from rich.progress import DownloadColumn
from safetensors.torch import load_file, save_file
from transformers import ViTModel
from transformers.utils import logging

from mergerisk import merging
from mergerisk.cli.main import main
from mergerisk.errors import UserError
from mergerisk.merging.emr import task_state
from mergerisk.models.sources.hub import fetch
from mergerisk.progress.bar import Bar
from mergerisk.recipe import load_recipe, merge_checkpoints, parse_recipe
from mergerisk.recipe.writing import SafetensorsWriter
from tests.models.hub_stand_in import COMMIT, hub
from tests.recipe.models import HEADS, State, encoder_states, save_models

PEFT = Path(__file__).parents[1] / "vectors" / "peft_lora"

METHODS: dict[str, dict[str, Any]] = {
    "weight_averaging": {"coefficients": [0.5, 0.3, 0.2]},
    "task_arithmetic": {"scaling": [0.1, 0.2, 0.3]},
    "ties": {"density": 0.3},
    "dare": {"drop_rate": 0.3, "then": "ties"},
    "della": {"drop_rate": 0.4},
    "wudi": {"steps": 3},
    "doge_ta": {"steps": 3},
    "tsv_m": {},
    "iso_c": {},
    "iso_cts": {},
    "consensus": {},
    "pcb": {},
    "breadcrumbs": {},
    "model_stock": {},
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logging.disable_progress_bar()
    return save_models(tmp_path_factory.mktemp("models"))


def recipe(folder: Path, **fields: Any) -> Any:
    """Weight averaging of all experts in a folder, or what ``fields`` say instead."""
    experts = {name: str(folder / name) for name in HEADS}
    return parse_recipe({"base": str(folder / "base"), "experts": experts, "method": "weight_averaging"} | fields)


def merged(out: Path) -> State:
    return load_file(out / "model.safetensors")


def assert_same(found: State, expected: State) -> None:
    """Bit for bit."""
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("method", METHODS)
def test_a_merge_on_disk_is_the_merge_in_memory(models: Path, tmp_path: Path, method: str) -> None:
    out = merge_checkpoints(recipe(models, method=method, seed=3, **METHODS[method]), tmp_path / "out")
    base, experts = encoder_states(models)
    parameters = {key: tuple(v) if isinstance(v, list) else v for key, v in METHODS[method].items()}
    expected = merging.merge_state_dicts(method, base, experts, seed=3, **parameters)
    assert_same(merged(out), expected)


def test_transformers_loads_what_was_merged(models: Path, tmp_path: Path) -> None:
    out = merge_checkpoints(recipe(models), tmp_path / "out")
    assert {file.name for file in out.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "recipe.yaml",
    }
    model, findings = ViTModel.from_pretrained(
        out, add_pooling_layer=False, output_loading_info=True, local_files_only=True
    )
    assert not any(findings.values())
    base, experts = encoder_states(models)
    expected = merging.merge_state_dicts("weight_averaging", base, experts)
    torch.testing.assert_close(model.embeddings.cls_token.data, expected["embeddings.cls_token"], rtol=0, atol=0)
    name = "preprocessor_config.json"
    assert (out / name).read_text() == (models / "base" / name).read_text()


def test_shards_and_half_precision(models: Path, tmp_path: Path) -> None:
    whole = merge_checkpoints(recipe(models, method="ties"), tmp_path / "whole")
    assert len(list((models / "sharded" / "cars").glob("*.safetensors"))) > 2
    sharded = merge_checkpoints(recipe(models / "sharded", method="ties"), tmp_path / "sharded")
    assert_same(merged(sharded), merged(whole))

    half = merge_checkpoints(recipe(models / "half", method="ties"), tmp_path / "half")
    assert_same(merged(half), merging.merge_state_dicts("ties", *encoder_states(models / "half")))
    assert json.loads((half / "config.json").read_text())["dtype"] == "float16"


def test_mixed_precision_needs_a_dtype_and_is_rounded_once(models: Path, tmp_path: Path) -> None:
    experts = {"base": str(models / "half" / "cars"), "mnist": str(models / "mnist")}
    with pytest.raises(UserError, match="is float16, the base's is float32; set dtype in the recipe"):
        merge_checkpoints(recipe(models, experts=experts), tmp_path / "out")
    chosen = recipe(models / "half", experts=experts, method="task_arithmetic", dtype="bfloat16")
    out = merge_checkpoints(chosen, tmp_path / "out")

    base, _ = encoder_states(models / "half")
    states = [load_file(Path(path) / "model.safetensors") for path in experts.values()]
    wide = [{name: state[f"vit.{name}"].float() for name in base} for state in states]
    expected = merging.merge_state_dicts("task_arithmetic", {name: t.float() for name, t in base.items()}, wide)
    assert_same(merged(out), {name: tensor.bfloat16() for name, tensor in expected.items()})
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert (out / "README.md").read_text().count("| base | ") == 2  # one of the experts is called so


def test_a_dtype_also_holds_for_what_is_not_merged(models: Path, tmp_path: Path) -> None:
    out = merge_checkpoints(recipe(models, dtype="float64", include="layernorm.*"), tmp_path / "out")
    base, experts = encoder_states(models)
    expected = {name: tensor.double() for name, tensor in base.items()}
    for name in ("layernorm.weight", "layernorm.bias"):
        expected[name] = sum(expert[name].double() for expert in experts) / 3
    for name, tensor in merged(out).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-12, atol=0)


def test_what_is_not_included_is_the_bases(models: Path, tmp_path: Path) -> None:
    fields = {"include": ["*.attention.*", "layernorm.weight"], "exclude": ["*.bias"]}
    found = merged(merge_checkpoints(recipe(models, **fields), tmp_path / "out"))
    base, experts = encoder_states(models)
    averaged = merging.merge_state_dicts("weight_averaging", base, experts)
    chosen = {n for n in base if (".attention." in n or n == "layernorm.weight") and not n.endswith(".bias")}
    assert 0 < len(chosen) < len(base)
    assert_same(found, {name: (averaged if name in chosen else base)[name] for name in base})


def test_a_base_with_a_head_of_its_own(models: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"base": str(models / "dtd"), "exclude": ["classifier.*"]}
    out = merge_checkpoints(recipe(models, **fields), tmp_path / "out")
    base = load_file(models / "dtd" / "model.safetensors")
    assert torch.equal(merged(out)["classifier.weight"], base["classifier.weight"])
    with pytest.raises(
        UserError, match=r"classifier.* has shape .* the base's has .* exclude: \[\"classifier\.\*\"\]"
    ):
        merge_checkpoints(recipe(models, base=str(models / "dtd")), tmp_path / "other")
    # A bare encoder as an expert of a base with a head: the prefix is on the other side.
    fields["experts"] = [str(models / "base"), str(models / "cars")]
    fields["preprocessing"] = "base"  # of which the bare encoder alone says something
    swapped = merge_checkpoints(recipe(models, **fields), tmp_path / "swapped")
    bare, heads = encoder_states(models)
    expected = merging.merge_state_dicts("weight_averaging", bare, [bare, heads[0]])
    assert_same({n.removeprefix("vit."): t for n, t in merged(swapped).items() if n.startswith("vit.")}, expected)


def test_integer_buffers_are_the_bases_whatever_experts_have(tmp_path: Path) -> None:
    weight = torch.arange(4.0)
    save_file({"w": weight, "positions": torch.arange(3), "steps": torch.tensor(9)}, tmp_path / "base.safetensors")
    save_file({"w": weight + 1, "steps": torch.tensor([1, 2])}, tmp_path / "a.safetensors")
    save_file({"w": weight + 3, "mask": torch.ones(2, dtype=torch.bool)}, tmp_path / "b.safetensors")
    files = {name: str(tmp_path / f"{name}.safetensors") for name in ("base", "a", "b")}
    chosen = {"base": files["base"], "experts": [files["a"], files["b"]], "method": "weight_averaging"}
    out = merge_checkpoints(parse_recipe(chosen), tmp_path / "out")
    expected = {"w": weight + 2, "positions": torch.arange(3), "steps": torch.tensor(9)}
    assert_same(merged(out), expected)
    assert "without `config.json`" in (out / "README.md").read_text()


def test_running_statistics_are_averaged_and_the_card_says_so(tmp_path: Path) -> None:
    def state(value: float) -> State:
        own = {name: torch.full((2,), value) for name in ("running_mean", "running_var", "weight")}
        return {f"norm.{name}": tensor for name, tensor in own.items()}

    for name, value in (("base", 0.0), ("a", 1.0), ("b", 3.0)):
        save_file(state(value), tmp_path / f"{name}.safetensors")
    base, a, b = (str(tmp_path / f"{name}.safetensors") for name in ("base", "a", "b"))
    chosen = parse_recipe({"base": base, "experts": [a, b], "method": "task_arithmetic", "scaling": 1.0})
    out = merge_checkpoints(chosen, tmp_path / "out")
    expected = {"norm.running_mean": 2.0, "norm.running_var": 2.0, "norm.weight": 4.0}
    assert_same(merged(out), {name: torch.full((2,), value) for name, value in expected.items()})
    assert "estimate them anew" in (out / "README.md").read_text()


def test_adapters_are_experts(tmp_path: Path) -> None:
    experts = [str(PEFT / name) for name in ("plain", "biases", "conv_and_saved_module")]
    chosen = parse_recipe({"base": str(PEFT / "base"), "experts": experts, "method": "task_arithmetic"})
    out = merge_checkpoints(chosen, tmp_path / "out")
    base = load_file(PEFT / "base" / "model.safetensors")
    states = [load_file(Path(expert) / "merged.safetensors") for expert in experts]
    expected = merging.merge_state_dicts("task_arithmetic", base, states)
    for name, tensor in merged(out).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)
    assert "adapter_model.safetensors" in (out / "README.md").read_text()


def test_an_adapter_with_a_head_that_the_base_has_not(tmp_path: Path) -> None:
    shutil.copytree(PEFT / "plain", tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.classifier.weight": torch.ones(3, 16)}, file)
    chosen = {"base": str(PEFT / "base"), "experts": [str(tmp_path / "adapter")], "method": "weight_averaging"}
    with pytest.raises(UserError, match=r"'classifier\.weight' matches no tensor of the base"):
        merge_checkpoints(parse_recipe(chosen), tmp_path / "out")
    out = merge_checkpoints(parse_recipe(chosen | {"exclude": ["classifier.*"]}), tmp_path / "out")
    assert "Left out, since the base has none: `classifier.weight`; of adapter" in (out / "README.md").read_text()


def test_an_adapter_of_a_base_in_half_precision(tmp_path: Path) -> None:
    shutil.copytree(PEFT / "base", tmp_path / "base")
    half = {n: t.half() for n, t in load_file(PEFT / "base" / "model.safetensors").items()}
    save_file(half, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    chosen = {"base": str(tmp_path / "base"), "experts": [str(PEFT / "plain")], "method": "weight_averaging"}
    found = merged(merge_checkpoints(parse_recipe(chosen), tmp_path / "out"))
    expected = load_file(PEFT / "plain" / "merged.safetensors")
    for name, tensor in found.items():
        assert tensor.dtype == torch.float16
        torch.testing.assert_close(tensor.float(), expected[name], rtol=2e-3, atol=2e-3)


def test_a_method_with_an_encoder_per_task_writes_a_folder_for_each(models: Path, tmp_path: Path) -> None:
    out = merge_checkpoints(recipe(models, method="emr"), tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {*HEADS, "README.md", "recipe.yaml"}
    base, experts = encoder_states(models)
    parts = merging.create("emr").merge_tasks(base, dict(zip(HEADS, experts, strict=True)))
    for task in HEADS:
        assert_same(merged(out / task), task_state(base, parts, task))
        assert (out / task / "config.json").is_file()
    with pytest.raises(UserError, match="not empty"):
        merge_checkpoints(recipe(models, method="emr"), out)
    merge_checkpoints(recipe(models), out, force=True)
    assert not (out / "cars").exists()


def test_the_card_says_what_went_in(models: Path, tmp_path: Path) -> None:
    given = recipe(models, method="ties", density=0.3, exclude=["layernorm.*"])
    out = merge_checkpoints(given, tmp_path / "out", checksums=True)
    text = (out / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head == {
        "base_model": ["base", *HEADS],
        "library_name": "transformers",
        "tags": ["mergerisk", "merge"],
    }
    for name in ("base", *HEADS):
        digest = hashlib.sha256((models / name / "model.safetensors").read_bytes()).hexdigest()
        assert f"| {name} | {name} | model.safetensors | {digest} |" in text
    for words in (
        "`ties`",
        "arXiv 2306.01708",
        "- density: 0.3",
        "- trim: global",
        "Taken from the base as they are: `layernorm.bias`, `layernorm.weight`",
        "Left out, since the base has none: `classifier.bias`, `classifier.weight`; of cars, mnist, dtd",
        "prefix `vit.`; of cars, mnist, dtd",
    ):
        assert words in text, words
    assert str(models) not in text


def test_the_recipe_that_was_written_makes_the_same(models: Path, tmp_path: Path) -> None:
    first = merge_checkpoints(recipe(models, method="dare", seed=5), tmp_path / "first")
    written = load_recipe(first / "recipe.yaml")
    assert written.parameters["drop_rate"] == 0.5
    second = merge_checkpoints(written, tmp_path / "second")
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_models_of_the_hub(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (models / name).iterdir()}

    with hub({f"org/{name}": files(name) for name in ("base", *HEADS)}) as (address, _):

        def from_there(spec: str, *, offline: bool) -> Path:
            return fetch(spec, offline=offline, endpoint=address, cache=tmp_path / "cache")

        monkeypatch.setattr("mergerisk.recipe.gathering.fetch", from_there)
        chosen = {"base": "org/base@main", "experts": [f"org/{name}" for name in HEADS], "method": "ties"}
        out = merge_checkpoints(parse_recipe(chosen), tmp_path / "out")
    assert_same(merged(out), merging.merge_state_dicts("ties", *encoder_states(models)))
    text = (out / "README.md").read_text()
    assert f"| cars | org/cars | model.safetensors | {COMMIT} |" in text
    assert yaml.safe_load(text.split("---")[1])["base_model"] == ["org/base", *(f"org/{name}" for name in HEADS)]
    assert load_recipe(out / "recipe.yaml").base == f"org/base@{COMMIT}"


def rewritten(folder: Path, target: Path, change: Any) -> str:
    """A copy of a model whose tensors ``change`` has been at."""
    shutil.copytree(folder, target)
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, target / "model.safetensors")
    return str(target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("vit.layernorm.weight"),
            r"lacks tensor 'vit\.layernorm\.weight'.*exclude: \[\"layernorm\.weight\"\]",
        ),
        (
            lambda s: s.update({"vit.pooler.dense.bias": torch.ones(2)}),
            r"'vit\.pooler\.dense\.bias' is not in the base",
        ),
        (
            lambda s: s.update({"vit.layernorm.weight": torch.ones(17)}),
            r"has shape \(17,\), the base's has \(16,\)",
        ),
        (lambda s: s.update({"vit.layernorm.weight": torch.ones(16).half()}), "is float16"),
        (lambda s: s.update({"vit.layernorm.weight": torch.ones(16).long()}), "is int64"),
        (lambda s: s.clear(), "none of the tensors to merge"),
        (lambda s: s["vit.layernorm.weight"].fill_(torch.nan), r"tensor 'vit\.layernorm\.weight' holds NaN"),
        (lambda s: s["vit.layernorm.weight"][3:4].fill_(torch.inf), "holds NaN or infinity"),
    ],
)
def test_an_expert_that_does_not_fit_is_named_and_nothing_is_left(
    models: Path, tmp_path: Path, change: Any, message: str
) -> None:
    experts = {"cars": str(models / "cars"), "odd": rewritten(models / "mnist", tmp_path / "odd", change)}
    with pytest.raises(UserError, match=message) as raised:
        merge_checkpoints(recipe(models, experts=experts), tmp_path / "out")
    assert str(tmp_path / "odd") in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]


@pytest.mark.parametrize("included", [True, False])
def test_a_base_with_nan_is_named(models: Path, tmp_path: Path, included: bool) -> None:
    base = rewritten(models / "base", tmp_path / "odd", lambda s: s["layernorm.weight"].fill_(torch.nan))
    fields = {} if included else {"exclude": ["layernorm.*"]}
    with pytest.raises(UserError, match=r"odd/model\.safetensors: tensor 'layernorm\.weight' holds NaN"):
        merge_checkpoints(recipe(models, base=base, **fields), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]


@pytest.mark.parametrize(
    ("dtype", "coefficient", "remedy"),
    [
        ("float16", 1e6, "set dtype in the recipe to bfloat16 or float32"),
        ("bfloat16", 3e38, "lower `coefficients`, or set dtype in the recipe to float64"),
        ("float32", 3e38, "lower `coefficients`, or set dtype in the recipe to float64"),
        ("float64", 1.7e308, "lower `coefficients`"),
    ],
)
def test_a_merge_that_overflows_its_dtype_is_refused(
    models: Path, tmp_path: Path, dtype: str, coefficient: float, remedy: str
) -> None:
    chosen = recipe(models, coefficients=[coefficient] * len(HEADS), dtype=dtype)
    with pytest.raises(UserError, match=rf"exceeds the range of torch\.{dtype}; {remedy}$"):
        merge_checkpoints(chosen, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "slerp"}, "slerp interpolates between exactly two experts"),
        ({"coefficients": [0.5, 0.5]}, "2 values for 3 experts"),
        ({"coefficients": [1, 1e39, 1]}, "coefficients 1e+39 exceeds 3.4e+38"),
        ({"coefficients": [1, 1e39, 1], "dtype": "float16"}, "coefficients 1e+39 exceeds 3.4e+38"),
        ({"include": ["encoder.leyer.*"]}, "include: pattern 'encoder.leyer.*' matches no tensor"),
        ({"exclude": ["clasifier.*"]}, "exclude: pattern 'clasifier.*' matches no tensor"),
        ({"exclude": ["*"]}, "leave no tensor of the base to merge"),
        ({"include": []}, "leave no tensor of the base to merge"),
        ({"base": "/gone"}, "/gone: no such file or folder"),
        ({"experts": ["/gone"]}, "expert 'gone': /gone: no such file or folder"),
        ({"base": str(PEFT / "plain")}, "an adapter, not a model"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_refused_before_any_work(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("mergerisk.models.on_disk.checkpoints.Checkpoint.__getitem__", None)  # reads no values
    monkeypatch.setattr("mergerisk.merging.StateMerging.merge_states", None)  # merges nothing
    with pytest.raises(UserError) as raised:
        merge_checkpoints(recipe(models, **fields), tmp_path / "out")
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_method_that_needs_more_than_tensors_is_refused(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mergerisk.recipe.Recipe.create_method", lambda _: merging.create("regmean"))
    with pytest.raises(UserError, match="needs more than the checkpoints' tensors; run it in a study"):
        merge_checkpoints(recipe(models), tmp_path / "out")


def test_an_exclusion_may_concern_experts_alone(models: Path, tmp_path: Path) -> None:
    change: Any = lambda s: s.update({"vit.pooler.dense.bias": torch.ones(2)})  # noqa: E731
    experts = [str(models / "cars"), rewritten(models / "mnist", tmp_path / "odd", change)]
    # The heads lie outside the prefix, so they are left out anyway; saying so is no mistake.
    merge_checkpoints(recipe(models, experts=experts, exclude=["pooler.*", "classifier.*"]), tmp_path / "out")


def test_a_folder_that_holds_something_is_left_alone(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    merge_checkpoints(recipe(models), out)  # an empty one is as good as none
    before = merged(out)
    with pytest.raises(
        UserError, match="not empty; choose another --out, or replace an earlier merge with --force"
    ):
        merge_checkpoints(recipe(models, method="ties"), out)
    assert_same(merged(out), before)
    merge_checkpoints(recipe(models, method="ties"), out, force=True)
    assert not torch.equal(merged(out)["layernorm.weight"], before["layernorm.weight"])
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.txt, which no merge wrote"):
        merge_checkpoints(recipe(models), out, force=True)
    assert (out / "thesis.txt").exists()
    with pytest.raises(UserError, match=r"thesis\.txt: a file"):
        merge_checkpoints(recipe(models), out / "thesis.txt")


def test_force_destroys_no_ingredient_and_no_other_model(models: Path, tmp_path: Path) -> None:
    first = merge_checkpoints(recipe(models), tmp_path / "first")
    with pytest.raises(UserError, match="holds the ingredient"):
        merge_checkpoints(recipe(models, experts=[str(first), str(models / "cars")]), first, force=True)
    shutil.copytree(models / "cars", tmp_path / "cars")
    with pytest.raises(UserError, match="no merge wrote it"):
        merge_checkpoints(recipe(models), tmp_path / "cars", force=True)
    assert (tmp_path / "cars" / "model.safetensors").is_file()


def test_a_full_disk_is_one_line_and_leaves_nothing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(SafetensorsWriter, "write", write)
        with pytest.raises(UserError, match="the disk is full; 1 MiB needed; free space or choose another --out"):
            merge_checkpoints(recipe(models), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match="0 MiB free, 1 MiB needed"):
        merge_checkpoints(recipe(models), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_to_is_one_line(models: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        merge_checkpoints(recipe(models), tmp_path / "out")


KILLED = """
import sys, time
from mergerisk.recipe import load_recipe, merge_checkpoints
def pause(done, total):
    if done > total / 2:
        print("half", flush=True)
        time.sleep(60)
merge_checkpoints(load_recipe(sys.argv[1]), sys.argv[2], listener=pause)
"""


def test_killing_a_merge_leaves_no_folder_and_the_next_one_clears_up(models: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe(models).to_yaml())
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "recipe.yaml"), str(tmp_path / "out")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"half\n"
            assert (tmp_path / ".out.unfinished" / "model.safetensors").is_file()
            with pytest.raises(UserError, match="another process is writing there"):
                merge_checkpoints(recipe(models), tmp_path / "out")
        finally:
            process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    (tmp_path / ".out.unfinished" / "model.safetensors").write_bytes(b"half of a model")
    merge_checkpoints(recipe(models), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "out"}
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_experts(tmp_path: Path) -> None:
    tensors, size = 16, 2**20
    for name in ("base", "expert"):
        state = {f"w{i}": torch.full((size // 4,), float(name == "base")) for i in range(tensors)}
        save_file(state, tmp_path / f"{name}.safetensors")

    def peak(experts: int) -> int:
        paths = {str(i): str(tmp_path / "expert.safetensors") for i in range(experts)}
        chosen = {"base": str(tmp_path / "base.safetensors"), "experts": paths, "method": "weight_averaging"}
        chosen_recipe = parse_recipe(chosen)
        merge_checkpoints(chosen_recipe, tmp_path / str(experts))  # imports, and the allocator's first growth
        shutil.rmtree(tmp_path / str(experts))
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        merge_checkpoints(chosen_recipe, tmp_path / str(experts))
        return _status("VmHWM") - before

    # Twelve experts more are 192 MiB more; a tensor of each is 12 MiB.
    assert peak(14) < peak(2) + 24 * size


STREAMED = """
import json, sys
from pathlib import Path
from mergerisk.recipe import merge_checkpoints, parse_recipe

def status(which):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))

def merge(folder, method):
    experts = [str(folder / "a.safetensors"), str(folder / "b.safetensors")]
    recipe = {"base": str(folder / "base.safetensors"), "experts": experts, "method": method}
    merge_checkpoints(parse_recipe(recipe), folder / method)

method, small, large = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
merge(small, method)  # imports
before = status("VmRSS")
merge(large, method)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("method", ["ties", "pcb"])
def test_methods_that_rank_all_entries_stream_too(tmp_path: Path, method: str) -> None:
    """In a process of its own: in this one, memory that other tests left to the heap would hide what it takes."""
    draws = torch.Generator().manual_seed(0)
    for folder, tensors in (("small", 1), ("large", 40)):
        (tmp_path / folder).mkdir()
        for name in ("base", "a", "b"):
            state = {f"w{i}": torch.randn(2**19, generator=draws) for i in range(tensors)}
            save_file(state, tmp_path / folder / f"{name}.safetensors")
    arguments = [sys.executable, "-c", STREAMED, method, str(tmp_path / "small"), str(tmp_path / "large")]
    grown = int(subprocess.run(arguments, check=True, stdout=subprocess.PIPE).stdout)
    # A checkpoint is 80 MiB. A few tensors of 2 MiB, and the 16 MiB in which candidates are collected.
    assert grown < 40 * 2**20


def _status(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def test_the_command_line(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe(models).to_yaml())
    main(["merge", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")])
    found = capsys.readouterr()
    assert (found.out, found.err) == (f"{tmp_path / 'out'}\n", "")
    with pytest.raises(SystemExit) as ended:
        main(["merge", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("mergerisk: ")
    main(["merge", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out"), "--force", "--offline"])


def test_progress_counts_to_the_end(models: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for method in ("ties", "emr"):
        seen.clear()
        listener: Any = lambda *counts: seen.append(counts)  # noqa: E731
        merge_checkpoints(recipe(models, method=method), tmp_path / method, listener=listener)
        done = [count for count, _ in seen]
        assert done == sorted(done)
        assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("terminal", [True, False])
def test_there_is_a_bar_in_a_terminal_only(models: Path, tmp_path: Path, terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with Bar("merging", DownloadColumn(binary_units=True), console) as progress:
        merge_checkpoints(recipe(models), tmp_path / "out", listener=progress.listen)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert ("merging" in shown and "KiB" in shown) if terminal else not shown
