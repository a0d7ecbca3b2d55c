"""LoRA adapters against what PEFT makes of them, and against the definition where PEFT's files have no example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergerisk.errors import UserError
from mergerisk.models.on_disk.checkpoints import Checkpoint
from mergerisk.models.sources.lora import LoraCheckpoint

PEFT = Path(__file__).parent.parent / "vectors" / "peft_lora"

State = dict[str, torch.Tensor]


@pytest.mark.parametrize("name", ["plain", "rslora_patterns", "conv_and_saved_module", "biases"])
def test_adapters_are_merged_as_peft_merges_them(name: str) -> None:
    base = Checkpoint(PEFT / "base")
    adapted = LoraCheckpoint(base, PEFT / name, config=PEFT / "base")
    expected = load_file(PEFT / name / "merged.safetensors")
    assert set(adapted) == set(expected)
    changed = 0
    for tensor, value in expected.items():
        torch.testing.assert_close(adapted[tensor], value, rtol=1e-6, atol=1e-7)
        assert adapted.specs[tensor].shape == tuple(value.shape)
        untouched = adapted.file(tensor) == base.file(tensor)
        assert untouched == torch.equal(value, base[tensor])
        changed += not untouched
    assert changed > 0


def tensors(seed: int, **shapes: tuple[int, ...]) -> State:
    draws = torch.Generator().manual_seed(seed)
    return {name.replace("__", "."): torch.randn(shape, generator=draws) for name, shape in shapes.items()}


BASE = tensors(
    0, layer__weight=(6, 4), layer__bias=(6,), embed__weight=(5, 3), head__weight=(2, 6), head__bias=(2,)
)
FACTORS = tensors(1, layer__lora_A__weight=(2, 4), layer__lora_B__weight=(6, 2))
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 3}


def product(adapter: State, module: str = "layer", scale: float = 1.5) -> torch.Tensor:
    a, b = (adapter[f"{module}.lora_{factor}.weight"].double() for factor in "AB")
    return scale * torch.einsum("or,ri->oi", b, a)


def adapt(folder: Path, adapter: State, base: State | None = None, **config: Any) -> LoraCheckpoint:
    """An adapter as PEFT lays it out, on a base in a file."""
    folder.mkdir(exist_ok=True)
    save_file(BASE if base is None else base, folder / "base.safetensors")
    save_file({f"base_model.model.{name}": t for name, t in adapter.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    return LoraCheckpoint(Checkpoint(folder / "base.safetensors"), folder)


def test_what_an_adapter_does_not_name_is_the_bases(tmp_path: Path) -> None:
    adapted = adapt(tmp_path, FACTORS)
    torch.testing.assert_close(adapted["layer.weight"].double(), BASE["layer.weight"] + product(FACTORS))
    for name in BASE.keys() - {"layer.weight"}:
        assert torch.equal(adapted[name], BASE[name])


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 3 / 2),
        ({"use_rslora": True}, 3 / 2**0.5),
        ({"lora_alpha": 5}, 5 / 2),
        ({"alpha_pattern": {"other": 9, "la.er": 7}}, 7 / 2),
        ({"alpha_pattern": {"ayer": 7}}, 3 / 2),  # a pattern is the end of a name, from a dot on
        ({"r": 8, "rank_pattern": {"layer": 2}}, 3 / 2),
    ],
)
def test_the_scale_is_alpha_over_the_rank(tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    adapted = adapt(tmp_path, FACTORS, **config)
    expected = BASE["layer.weight"] + product(FACTORS, scale=scale)
    torch.testing.assert_close(adapted["layer.weight"].double(), expected)


def test_weights_stored_as_inputs_by_outputs(tmp_path: Path) -> None:
    base = BASE | {"layer.weight": BASE["layer.weight"].T.contiguous()}
    adapted = adapt(tmp_path, FACTORS, base, fan_in_fan_out=True)
    torch.testing.assert_close(adapted["layer.weight"].double(), (BASE["layer.weight"] + product(FACTORS)).T)


def test_embeddings(tmp_path: Path) -> None:
    adapter = tensors(2, embed__lora_embedding_A=(2, 5), embed__lora_embedding_B=(3, 2))
    a, b = adapter["embed.lora_embedding_A"], adapter["embed.lora_embedding_B"]
    expected = BASE["embed.weight"] + 1.5 * torch.einsum("or,ri->io", b, a)
    torch.testing.assert_close(adapt(tmp_path, adapter)["embed.weight"], expected)


def test_a_convolution_with_a_kernel(tmp_path: Path) -> None:
    base = tensors(3, conv__weight=(4, 3, 2, 2))
    adapter = tensors(4, conv__lora_A__weight=(2, 3, 2, 2), conv__lora_B__weight=(4, 2, 1, 1))
    a, b = adapter["conv.lora_A.weight"], adapter["conv.lora_B.weight"][:, :, 0, 0]
    expected = base["conv.weight"] + 1.5 * torch.einsum("or,rihw->oihw", b, a)
    torch.testing.assert_close(adapt(tmp_path, adapter, base)["conv.weight"], expected)


def test_biases_trained_and_of_the_factors(tmp_path: Path) -> None:
    biases = tensors(5, layer__base_layer__bias=(6,), layer__lora_B__bias=(6,), head__bias=(2,))
    adapted = adapt(tmp_path, FACTORS | biases, bias="all", lora_bias=True)
    expected = biases["layer.base_layer.bias"] + 1.5 * biases["layer.lora_B.bias"]
    torch.testing.assert_close(adapted["layer.bias"], expected)
    assert torch.equal(adapted["head.bias"], biases["head.bias"])


def test_a_saved_module_replaces_the_bases_whatever_its_shape(tmp_path: Path) -> None:
    saved = tensors(6, head__weight=(9, 6), head__modules_to_save__bias=(9,), head__original_module__bias=(2,))
    adapted = adapt(tmp_path, FACTORS | saved, modules_to_save=["head"])
    assert torch.equal(adapted["head.weight"], saved["head.weight"])
    assert torch.equal(adapted["head.bias"], saved["head.modules_to_save.bias"])
    assert adapted.specs["head.weight"].shape == (9, 6)


def test_half_precision_is_widened_not_rounded(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in BASE.items()}
    adapter = {name: tensor.half() for name, tensor in FACTORS.items()}
    adapted = adapt(tmp_path, adapter, half)
    assert adapted.specs["layer.weight"].dtype == adapted["layer.weight"].dtype == torch.float32
    expected = half["layer.weight"].double() + product(adapter)
    torch.testing.assert_close(adapted["layer.weight"].double(), expected, rtol=1e-6, atol=1e-6)
    assert adapted["embed.weight"].dtype == torch.float16


@pytest.mark.parametrize("inner", [True, False])
def test_a_base_within_the_adapted_model_or_around_it(tmp_path: Path, inner: bool) -> None:
    prefixed = {f"vit.{name}": tensor for name, tensor in (FACTORS if inner else BASE).items()}
    adapted = adapt(tmp_path, prefixed, BASE) if inner else adapt(tmp_path, FACTORS, prefixed)
    weight = adapted["layer.weight" if inner else "vit.layer.weight"]
    torch.testing.assert_close(weight.double(), BASE["layer.weight"] + product(FACTORS))


def test_every_tensor_has_to_be_used(tmp_path: Path) -> None:
    adapter = {f"vit.{name}": tensor for name, tensor in FACTORS.items()} | tensors(7, classifier__weight=(3, 6))
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: 'classifier\.weight' matches no tensor"):
        adapt(tmp_path, adapter)
    base = Checkpoint(tmp_path / "base.safetensors")
    ignoring = LoraCheckpoint(base, tmp_path, ignored=lambda name: name == "classifier.weight")
    torch.testing.assert_close(ignoring["layer.weight"].double(), BASE["layer.weight"] + product(FACTORS))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"use_dora": True}, "DoRA is not supported"),
        ({"use_qalora": True}, "QALoRA"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "trainable token indices"),
        ({"layer_replication": [[0, 1]]}, "layer replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4', which changed the base"),
        ({"init_lora_weights": "olora"}, "which changed the base"),
        ({"r": 4}, r"module 'layer' has rank 4, but its lora_A has shape \(2, 4\)"),
        ({"r": 0}, "no usable number"),
        ({"lora_alpha": None}, "no usable number"),
        ({"rank_pattern": {"(": 2}}, "no regular expression"),
    ],
)
def test_other_adapters_are_refused_by_name(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        adapt(tmp_path, FACTORS, **config)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"layer.lora_A.weight": FACTORS["layer.lora_A.weight"]}, "module 'layer' has not both"),
        (tensors(0, layer__lora_A__weight=(2, 5), layer__lora_B__weight=(6, 2)), "do not make the base's"),
        (tensors(0, layer__lora_A__weight=(2, 4), layer__lora_B__weight=(6, 3)), "do not make the base's"),
        (tensors(0, layer__lora_A__weight=(2, 4), layer__lora_B__weight=(6,)), "do not make the base's"),
        (tensors(0, layer__lora_A__weight=(2,), layer__lora_B__weight=()), "do not make the base's"),
        (FACTORS | tensors(0, layer__lora_B__bias=(5,)), "what is added to 'layer.bias' has shape"),
        (FACTORS | tensors(0, layer__lora_magnitude_vector=(6,)), "matches no tensor"),
        (tensors(0, other__lora_A__weight=(2, 4), other__lora_B__weight=(6, 2)), "matches no tensor"),
    ],
)
def test_factors_that_do_not_fit_are_refused(tmp_path: Path, adapter: State, message: str) -> None:
    with pytest.raises(UserError, match=message):
        adapt(tmp_path, adapter)


def test_pickled_adapters_are_refused_with_the_reason(tmp_path: Path) -> None:
    adapt(tmp_path, FACTORS)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors; adapter_model\.bin is a pickle"):
        LoraCheckpoint(Checkpoint(tmp_path / "base.safetensors"), tmp_path)
