"""Scalings that differ between layers: patterns against the names of tensors, and merges against those of one scaling."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.merging import METHODS, StateMerging, merge_state_dicts
from mergerisk.merging.per_layer import at
from mergerisk.models.inside.blocks import blocks_in, transformer_blocks

NAMES = [
    "embeddings.token",
    *(
        f"vision_model.encoder.layers.{block}.{part}"
        for block in range(12)
        for part in ("mlp.fc1.weight", "norm.bias")
    ),
    "head.weight",
]
MATCHES: list[tuple[str, str, bool]] = [
    ("layers.0-5", "vision_model.encoder.layers.5.norm.bias", True),
    ("layers.0-5", "vision_model.encoder.layers.6.norm.bias", False),
    ("layers.1", "vision_model.encoder.layers.10.norm.bias", False),
    ("layers.1", "vision_model.encoder.layers.1.norm.bias", True),
    ("encoder.layers.10-11.mlp", "vision_model.encoder.layers.11.mlp.fc1.weight", True),
    ("encoder.layers.10-11.mlp", "vision_model.encoder.layers.11.norm.bias", False),
    ("mlp", "vision_model.encoder.layers.0.mlp.fc1.weight", True),
    ("mlp.fc*", "vision_model.encoder.layers.0.mlp.fc1.weight", True),
    ("layer", "vision_model.encoder.layers.0.mlp.fc1.weight", False),
    ("layers.*.norm", "vision_model.encoder.layers.3.norm.bias", True),
]


@pytest.mark.parametrize(("pattern", "name", "matched"), MATCHES)
def test_a_pattern_is_a_part_of_a_name_between_dots(pattern: str, name: str, matched: bool) -> None:
    assert at({pattern: 1, "*": 0}, name) == int(matched)


def with_scaling() -> list[str]:
    """Data-free methods with a scaling, which may be a mapping of layers."""
    kinds = {name: METHODS.load(name) for name in METHODS.names()}
    return [name for name, kind in kinds.items() if issubclass(kind, StateMerging) and hasattr(kind, "scaling")]


def models(count: int) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    draws = torch.Generator().manual_seed(0)
    layers = {
        f"layers.{block}.{part}": size for block in (0, 1) for part, size in (("fc.weight", (8, 6)), ("b", (7,)))
    }
    base = {
        name: torch.randn(size, generator=draws)
        for name, size in {"patch.weight": (6, 3, 2, 2), **layers, "head.weight": (5, 8)}.items()
    }
    return base, [
        {n: v + 0.1 * torch.randn(v.shape, generator=draws) for n, v in base.items()} for _ in range(count)
    ]


@pytest.mark.parametrize("name", with_scaling())
def test_each_tensor_is_to_the_byte_that_of_its_own_scaling(name: str) -> None:
    base, experts = models(3)
    block, *_ = blocks_in(base)
    few = {"steps": 3} if hasattr(METHODS.load(name), "steps") else {}

    def merge(scaling: Any) -> dict[str, torch.Tensor]:
        return merge_state_dicts(name, base, experts, seed=1, scaling=scaling, **few)

    low, high, both, rest = (merge(scaling) for scaling in (0.25, 0.75, {block: 0.25, "*": 0.75}, {"*": 0.75}))
    inside = {tensor for tensor in base if tensor.startswith(f"{block}.")}
    assert 0 < len(inside) < len(base)
    for tensor in base:
        assert torch.equal(both[tensor], (low if tensor in inside else high)[tensor]), tensor
        assert torch.equal(rest[tensor], high[tensor]), tensor
    assert any(not torch.equal(low[tensor], high[tensor]) for tensor in inside)


def test_experts_may_have_one_each_in_a_layer() -> None:
    base, experts = models(2)
    merged = merge_state_dicts("task_arithmetic", base, experts, scaling={"layers.0": [1, 0], "*": [0, 1]})
    for name, value in merged.items():
        torch.testing.assert_close(value, experts[not name.startswith("layers.0.")][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        (
            {"layer.0-5": 0.2, "*": 0.4},
            "'layer.0-5' matches no tensor; the model's blocks are layers.0 to layers.1",
        ),
        ({"layers.0-1": 0.2}, r"no pattern matches '.*'; add '\*' for what the others leave"),
        ({"layers.0": 0.2, "layers.0-1": 0.3, "*": 0.4}, "'layers.0' and 'layers.0-1' both match"),
        ({"*": "much"}, "must be a number"),
        ({"*": [0.1, 0.2, 0.3]}, "3 values for 2 experts"),
        ({"*": 1e39}, "exceeds"),
    ],
)
def test_what_is_said_of_no_layer_is_an_error(scaling: dict[str, Any], said: str) -> None:
    base, experts = models(2)
    with pytest.raises(UserError, match=said):
        merge_state_dicts("task_arithmetic", base, experts, scaling=scaling)


def test_blocks_by_name_are_the_blocks_that_run() -> None:
    vit = mr.load_encoder("starter-vit")
    assert list(blocks_in(vit.state())) == [name.removeprefix("backbone.") for name in transformer_blocks(vit)]
    assert blocks_in(NAMES) == tuple(f"vision_model.encoder.layers.{block}" for block in range(12))
    stages = [
        f"stages.{s}.blocks.{b}.conv{c}.weight" for s, n in enumerate((2, 11, 3)) for b in range(n) for c in (1, 2)
    ]
    wanted = [f"stages.{s}.blocks.{b}" for s, n in enumerate((2, 11, 3)) for b in range(n)]
    assert blocks_in(["stem.conv1.weight", *reversed(stages), "fc.weight"]) == tuple(wanted)
    assert blocks_in(["0.weight", "3.weight", "fc.bias"]) == ()  # convolutions among what has no weights
    assert blocks_in(["fc.weight"]) == ()
