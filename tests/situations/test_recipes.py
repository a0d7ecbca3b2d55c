"""Merging checkpoints as people have them, and the recipes that they have written for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from mergerisk import merging
from mergerisk.models import load_encoder, load_expert
from mergerisk.recipe import merge_checkpoints, parse_recipe
from tests.recipe.models import HEADS, encoder_states, save_models
from tests.situations.situation import Situation

if TYPE_CHECKING:
    from pathlib import Path


def one_result_per_seed(folder: Path) -> bool:
    """The same draws on disk, under the names in a file, and in memory, under transformers'."""
    save_models(folder)
    experts = {name: str(folder / name) for name in HEADS}
    recipe = {"base": str(folder / "base"), "experts": experts, "method": "dare", "seed": 5}
    out = merge_checkpoints(parse_recipe(recipe), folder / "out")

    base = load_encoder(str(folder / "base"))
    tuned = {name: base.with_state(load_expert(base, path)) for name, path in experts.items()}
    in_memory = merging.create("dare").merge(base, tuned, seed=5).encoder.state()
    on_disk = load_file(out / "model.safetensors")
    assert in_memory.keys() != on_disk.keys()
    read = load_expert(base, out)
    plain = merging.merge_state_dicts("dare", *encoder_states(folder), seed=5)
    return all(torch.equal(tensor, read[name]) for name, tensor in in_memory.items()) and all(
        torch.equal(tensor, on_disk[name]) for name, tensor in plain.items()
    )


SITUATIONS = (
    Situation("DARE with one seed: in mergerisk merge, in a study, in Python", one_result_per_seed, True),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_what_people_merge(situation: Situation, tmp_path: Path) -> None:
    situation.check(tmp_path)
