"""Checkpoints of a few thousand parameters, laid out as transformers saves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification, ViTModel

if TYPE_CHECKING:
    from pathlib import Path

State = dict[str, torch.Tensor]

HEADS = {"cars": 3, "mnist": 5, "dtd": 2}
"""Experts and their numbers of classes."""


def save_models(folder: Path) -> Path:
    """``base``, a bare encoder, and experts with heads; the same in half precision and in shards."""

    def config(classes: int = 2) -> ViTConfig:
        return ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=8,
            patch_size=4,
            num_labels=classes,
        )

    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = ViTModel(config(), add_pooling_layer=False)
        base.save_pretrained(folder / "base")
        base.save_pretrained(folder / "sharded" / "base", max_shard_size="8KB")
        (folder / "base" / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
        for name, classes in HEADS.items():
            expert = ViTForImageClassification(config(classes))
            expert.vit.load_state_dict(base.state_dict())
            with torch.no_grad():
                for parameter in expert.parameters():
                    parameter.add_(0.02 * torch.randn_like(parameter))
            expert.save_pretrained(folder / name)
            expert.save_pretrained(folder / "sharded" / name, max_shard_size="8KB")
            expert.half().save_pretrained(folder / "half" / name)
        base.half().save_pretrained(folder / "half" / "base")
    return folder


def encoder_states(folder: Path) -> tuple[State, list[State]]:
    """The base's tensors and the experts', without their heads, under the base's names."""
    base = load_file(folder / "base" / "model.safetensors")
    experts = [load_file(folder / name / "model.safetensors") for name in HEADS]
    return base, [{name: expert[f"vit.{name}"] for name in base} for expert in experts]
