"""Experts from files, folders, adapters and a hub, under every name their tensors may have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mergerisk.errors import UserError
from mergerisk.models import expert_identity, load_encoder, load_expert
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.sources.hub import fetch
from tests.models.hub_stand_in import hub
from tests.models.material import CLASSIFIERS, save_classifier, save_clip

if TYPE_CHECKING:
    from mergerisk.models import Encoder

PEFT = Path(__file__).parent.parent / "vectors" / "peft_lora"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "base", tokenizer=False)


@pytest.fixture(scope="module")
def base(clip: Path) -> Encoder:
    return load_encoder(str(clip))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another whole CLIP of the same architecture."""
    return save_clip(tmp_path_factory.mktemp("tuned") / "clip", seed=1, tokenizer=False)


def tower_of(folder: Path) -> dict[str, torch.Tensor]:
    """The vision tower's tensors by their names within it, read by safetensors itself."""
    whole = load_file(folder / "model.safetensors")
    start = "vision_model."
    return {name.removeprefix(start): tensor for name, tensor in whole.items() if name.startswith(start)}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_whole_clip_is_an_expert(base: Encoder, tuned: Path) -> None:
    expected = tower_of(tuned)
    assert len(expected) == len(base.state()) > 30
    assert_same(load_expert(base, tuned).state(), expected)
    assert_same(load_expert(base, tuned / "model.safetensors").state(), expected)
    assert_same(load_expert(base, str(tuned)).state(), expected)


@pytest.mark.parametrize("prefix", ["", "vision_model.", "clip.vision_model."])
def test_towers_are_found_under_any_prefix(prefix: str, base: Encoder, tuned: Path, tmp_path: Path) -> None:
    expected = tower_of(tuned)
    # As transformers before version 5 saved them, with a buffer of integers.
    stored = {f"{prefix}{name}": tensor for name, tensor in expected.items()}
    stored[f"{prefix}embeddings.position_ids"] = torch.arange(17)[None]
    save_file(stored, tmp_path / "expert.safetensors")
    assert_same(load_expert(base, tmp_path / "expert.safetensors").state(), expected)


def test_half_precision_is_widened(base: Encoder, tuned: Path, tmp_path: Path) -> None:
    expected = tower_of(tuned)
    save_file({name: tensor.bfloat16() for name, tensor in expected.items()}, tmp_path / "half.safetensors")
    found = load_expert(base, tmp_path / "half.safetensors").state()
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert_same(found, {name: tensor.bfloat16().float() for name, tensor in expected.items()})


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_classifiers_are_experts_under_their_names_on_disk(family: str, tmp_path: Path) -> None:
    base = load_encoder(str(save_classifier(tmp_path / "base", family)))
    other = save_classifier(tmp_path / "other", family, seed=1)
    # The truth is what transformers reads from that folder.
    expected = load_encoder(str(other)).state()
    assert_same(load_expert(base, other).state(), expected)
    assert not all(torch.equal(tensor, base.state()[name]) for name, tensor in expected.items())
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, tmp_path / "named.safetensors")
    assert_same(load_expert(base, tmp_path / "named.safetensors").state(), expected)


@pytest.mark.parametrize("name", ["plain", "rslora_patterns", "conv_and_saved_module", "biases"])
def test_adapters_are_experts(name: str) -> None:
    base = load_encoder(str(PEFT / "base"))
    before = {key: tensor.clone() for key, tensor in base.state().items()}
    found = load_expert(base, PEFT / name).state()
    merged = base.with_state(found)
    # PEFT's own merge, under the names on disk.
    assert_close(load_expert(base, PEFT / name / "merged.safetensors").state(), found)
    assert merged.state().keys() == before.keys()
    assert_same(base.state(), before)


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7)


def save_adapter(folder: Path, factors: dict[str, tuple[int, int]], rank: int = 2) -> dict[str, torch.Tensor]:
    """An adapter of linear layers (name → outputs, inputs) as PEFT lays it out; returns what it adds."""
    draws = torch.Generator().manual_seed(0)
    stored, added = {}, {}
    for name, (outputs, inputs) in factors.items():
        a, b = torch.randn(rank, inputs, generator=draws), torch.randn(outputs, rank, generator=draws)
        stored |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
        added[name] = 2 * b @ a
    folder.mkdir()
    save_file(stored, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return added


QUERY = "encoder.layers.1.self_attn.q_proj"


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_an_adapter_of_both_towers_changes_the_images(prefix: str, base: Encoder, tmp_path: Path) -> None:
    factors = {f"{prefix}{QUERY}": (32, 32)}
    if prefix:
        factors[f"text_model.{QUERY}"] = (24, 24)
    added = save_adapter(tmp_path / "adapter", factors)
    found = load_expert(base, tmp_path / "adapter").state()
    expected = dict(base.state())
    expected[f"{QUERY}.weight"] = expected[f"{QUERY}.weight"] + added[f"{prefix}{QUERY}"]
    assert_close(found, expected)
    assert not torch.equal(found[f"{QUERY}.weight"], base.state()[f"{QUERY}.weight"])


def test_adapters_that_do_not_fit_are_refused(base: Encoder, tmp_path: Path) -> None:
    cases: dict[str, dict[str, tuple[int, int]]] = {
        "deeper": {"encoder.layers.7.self_attn.q_proj": (32, 32)},
        "wider": {QUERY: (48, 48)},
        "other": {"model.decoder.wq": (32, 32)},
    }
    for name, factors in cases.items():
        save_adapter(tmp_path / name, factors)
        with pytest.raises(UserError, match=r"matches no tensor|do not make|changes no tensor") as raised:
            load_expert(base, tmp_path / name)
        assert "\n" not in str(raised.value)


def test_checkpoints_of_other_architectures_are_refused(base: Encoder, tuned: Path, tmp_path: Path) -> None:
    good = tower_of(tuned)
    name = "encoder.layers.0.mlp.fc1.weight"
    cases: dict[str, dict[str, torch.Tensor | None]] = {
        f"'{name}' is missing; .*another architecture": {name: None},
        f"'{name}' has shape .*8, 8.*another architecture": {name: torch.zeros(8, 8)},
        "'encoder.layers.2.x' is not in the base; .*another architecture": {"encoder.layers.2.x": torch.zeros(1)},
        f"'{name}' holds NaN": {name: torch.full_like(good[name], torch.nan)},
        f"'{name}' holds int8: quantised weights": {name: good[name].to(torch.int8)},
    }
    for message, change in cases.items():
        content = {key: tensor for key, tensor in (good | change).items() if tensor is not None}
        save_file(content, tmp_path / "bad.safetensors")
        with pytest.raises(UserError, match=message) as raised:
            load_expert(base, tmp_path / "bad.safetensors")
        assert "\n" not in str(raised.value)
        assert "bad.safetensors" in str(raised.value)
    with pytest.raises(UserError, match="another architecture"):
        load_expert(base, save_classifier(tmp_path / "resnet", "resnet"))


def test_half_a_download_is_refused(base: Encoder, tuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(tuned, folder)
    content = (folder / "model.safetensors").read_bytes()
    for kept in (5, len(content) // 2, len(content) - 1):
        (folder / "model.safetensors").write_bytes(content[:kept])
        with pytest.raises(UserError, match="cut short"):
            load_expert(base, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights are not read"):
        load_expert(base, folder)


def test_one_tensor_is_read_at_a_time(base: Encoder, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of the text tower's."""
    read: list[str] = []
    original = Checkpoint.__getitem__

    def noted(self: Checkpoint, name: str) -> torch.Tensor:
        read.append(name)
        return original(self, name)

    monkeypatch.setattr(Checkpoint, "__getitem__", noted)
    load_expert(base, tuned)
    assert len(read) == len(set(read)) == len(base.state())
    assert all(name.startswith("vision_model.") for name in read)


@pytest.fixture
def own_hub(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hub that :func:`fetch` asks unless it is told otherwise."""
    files = {path.name: path.read_bytes() for path in tuned.iterdir()}
    with hub({"org/expert": files}) as (address, requests):
        for module in ("experts", "siblings", "loading", "hub"):
            monkeypatch.setattr(f"mergerisk.models.sources.{module}.fetch", at(address, tmp_path / "cache"))
        yield requests


def at(address: str, cache: Path) -> Any:
    def fetch_here(spec: str, *, offline: bool = False) -> Path:
        return fetch(spec, offline=offline, endpoint=address, cache=cache)

    return fetch_here


def test_experts_and_backbones_of_the_hub(base: Encoder, tuned: Path, own_hub: list[str]) -> None:
    with pytest.raises(UserError, match=r"org/expert: no such folder, and not in the cache.*without --offline"):
        load_expert(base, "org/expert", offline=True)
    with pytest.raises(UserError, match=r"backbone org/expert: .*not in the cache"):
        load_encoder("org/expert", offline=True)
    assert not own_hub
    with pytest.raises(UserError, match="no such model on the hub"):
        load_encoder("org/expart")
    expected = tower_of(tuned)
    assert_same(load_expert(base, "org/expert@main").state(), expected)
    assert_same(load_encoder("org/expert").state(), expected)
    before = len(own_hub)
    assert_same(load_expert(base, "org/expert", offline=True).state(), expected)
    assert expert_identity("org/expert", offline=True) == expert_identity(tuned)
    assert len(own_hub) == before


def test_an_experts_identity_is_that_of_what_decides(tuned: Path, clip: Path, tmp_path: Path) -> None:
    assert set(expert_identity(tuned)) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert expert_identity(tuned) != expert_identity(clip)
    file = expert_identity(tuned / "model.safetensors")
    assert list(file.values()) == [expert_identity(tuned)["model.safetensors"]]
    save_adapter(tmp_path / "adapter", {QUERY: (32, 32)})
    before = expert_identity(tmp_path / "adapter")
    assert set(before) == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}))
    assert expert_identity(tmp_path / "adapter") != before
    with pytest.raises(UserError, match="no such file or folder"):
        expert_identity(tmp_path / "a" / "b" / "c")


def test_a_bare_vision_model_of_transformers_is_an_expert(base: Encoder, tuned: Path, tmp_path: Path) -> None:
    """What published experts of merging benchmarks are."""
    transformers.CLIPVisionModel.from_pretrained(tuned).save_pretrained(tmp_path)
    assert_same(load_expert(base, tmp_path).state(), tower_of(tuned))
