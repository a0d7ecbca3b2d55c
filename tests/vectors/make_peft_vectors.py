"""Write ``peft_lora/``: adapters saved by PEFT, and what PEFT's ``merge_and_unload`` makes of them.

PEFT is not a dependency. To make the folder again, in an environment of its own with Python 3.11, run from the
repository root::

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 peft==0.21.2
    python -m tests.vectors.make_peft_vectors

``peft_lora/README.md`` says what the folder holds. The merge runs in float64 and is rounded once.
``target_modules`` and the files' metadata come out in no fixed order; the tensors are the same every time.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import ViTConfig, ViTModel

FOLDER = Path(__file__).with_name("peft_lora")
SEED = 20250612

ADAPTERS = {
    "plain": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "rslora_patterns": LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "fc1"],
        use_rslora=True,
        rank_pattern={"v_proj": 2},
        alpha_pattern={"layers.0.mlp.fc1": 3},
    ),
    "conv_and_saved_module": LoraConfig(
        r=4, lora_alpha=6, target_modules=["projection"], modules_to_save=["layernorm"]
    ),
    "biases": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], bias="lora_only"),
}


def make_base(generator: torch.Generator) -> ViTModel:
    """A vision transformer of one block in which no parameter keeps its initial 0 or 1."""
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=4,
        image_size=4,
        patch_size=2,
    )
    model = ViTModel(config, add_pooling_layer=False).eval()
    disturb(model, generator)
    return model


def disturb(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Add noise to every trainable parameter, in training's place."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def on_disk(model: ViTModel) -> dict[str, Tensor]:
    """The tensors as ``save_pretrained`` names them."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder, "model.safetensors"))


def main() -> None:
    """Make and write the folder, except for its README."""
    torch.manual_seed(SEED)  # what the libraries initialise
    generator = torch.Generator().manual_seed(SEED)
    base = make_base(generator)
    base.save_pretrained(FOLDER / "base")
    versions = {library: version(library) for library in ("peft", "transformers", "torch")}
    for name, config in ADAPTERS.items():
        adapted = get_peft_model(copy.deepcopy(base), config)
        disturb(adapted, generator)
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        adapted.save_pretrained(FOLDER / name)
        (FOLDER / name / "README.md").unlink()  # a form to fill in
        merged = on_disk(adapted.double().merge_and_unload())
        save_file(
            {key: tensor.float() for key, tensor in merged.items()},
            FOLDER / name / "merged.safetensors",
            metadata=versions,
        )


if __name__ == "__main__":
    main()
