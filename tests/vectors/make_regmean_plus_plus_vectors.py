"""Write ``regmean_plus_plus.safetensors``: a small transformer merged by FusionBench's RegMean++.

FusionBench is not a dependency. To make the file again, in an environment of its own with Python 3.11, run from
the repository root::

    pip install torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 fusion-bench==0.2.33 lazy-loader==0.6
    PYTHONPATH=. python -m tests.vectors.make_regmean_plus_plus_vectors

How fusion-bench 0.2.33 maps to this project's definitions (read from its source): ``RegMeanAlgorithmPlusPlus`` is the
algorithm, and asks a subclass for what is a model's own, as here for :class:`tests.vectors.tower.Tower`; how inputs are
gathered is that of its subclass for CLIP. What stands before the blocks is averaged. What would stand behind them is
left as it was pretrained; here there is nothing. That subclass takes the first of what a block puts out, which with
transformers 5, whose blocks put out a tensor, is the first image.
"""

from __future__ import annotations

import copy
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fusion_bench import BaseModelPool
from fusion_bench.method.regmean_plusplus.clip_regmean_plusplus import RegMeanAlgorithmForCLIPPlusPlus
from fusion_bench.method.regmean_plusplus.regmean_plusplus import RegMeanAlgorithmPlusPlus
from safetensors.torch import save_file
from tests.vectors.tower import SIDE, TASKS, Tower
from torch import Tensor, nn


class OfTowers(RegMeanAlgorithmPlusPlus):
    """FusionBench's algorithm, told what a tower is."""

    fabric = SimpleNamespace(setup=lambda layer: layer)
    get_regmean_weights = RegMeanAlgorithmForCLIPPlusPlus.get_regmean_weights

    def merge_embedding_layer(self, models_to_merge_dict: dict[str, nn.Module]) -> dict[str, Tensor]:
        states = [model.state_dict() for model in models_to_merge_dict.values()]
        self.embedding = {
            name: torch.stack([state[name] for state in states]).mean(dim=0)
            for name in states[0]
            if not name.startswith("blocks.")
        }
        return self.embedding

    def get_input_for_first_layer(self, model: Tower, train_dataset: Tensor) -> list[Tensor]:
        return [model.embedded(train_dataset)]

    def get_layers(self, model: Tower) -> nn.ModuleList:
        return model.blocks

    def update_merged_params_dict(
        self, merged_params_dict: dict[str, Tensor], new_merged_params: dict[str, Tensor], layer_idx: int
    ) -> dict[str, Tensor]:
        named = {f"blocks.{layer_idx}.{name}": tensor for name, tensor in new_merged_params.items()}
        return self.embedding | merged_params_dict | named

    def layer_batches_forward(self, layer: nn.Module, batches_input: list[Tensor]) -> list[Tensor]:
        return [layer(batch) for batch in batches_input]


class Pool(BaseModelPool):
    """The towers and their images."""

    def __init__(self, models: dict[str, nn.Module], images: dict[str, Tensor]) -> None:
        super().__init__(models)
        self._images = images

    def load_train_dataset(self, dataset_name: str, *_: Any, **__: Any) -> Tensor:
        return self._images[dataset_name]


def main() -> None:
    """Make and write the vectors."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    base = Tower().double()
    towers = {}
    for task in TASKS:
        towers[task] = Tower().double()
        moved = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in base.state_dict().items()}
        towers[task].load_state_dict({name: tensor.float().double() for name, tensor in moved.items()})
    base.load_state_dict({name: tensor.float().double() for name, tensor in base.state_dict().items()})
    images = {
        task: (torch.rand(12, 3, SIDE, SIDE) * 0.6 + 0.2 * place).double() for place, task in enumerate(TASKS)
    }
    stored = {f"base/{name}": tensor.float() for name, tensor in base.state_dict().items()}
    for task, tower in towers.items():
        stored |= {f"{task}/{name}": tensor.float().clone() for name, tensor in tower.state_dict().items()}
        stored[f"{task}/images"] = images[task].float()
    for ratio in (0.95, 1.0):
        method = OfTowers(
            num_regmean_examples=12,
            exclude_param_names_regex=[],
            reduce_non_diagonal_ratio=ratio,
            weight_transpose=True,
        )
        pool = Pool(
            copy.deepcopy({"_pretrained_": base, **towers}),
            {task: 2 * pixels - 1 for task, pixels in images.items()},
        )
        merged = method.run(pool).state_dict()
        stored |= {f"merged {ratio}/{name}": tensor.clone() for name, tensor in merged.items()}
    versions = {"fusion-bench": version("fusion-bench"), "torch": torch.__version__}
    save_file(stored, Path(__file__).with_name("regmean_plus_plus.safetensors"), metadata=versions)


if __name__ == "__main__":
    main()
