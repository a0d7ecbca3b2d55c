"""Merging against mergekit; ``tests/vectors/make_mergekit_vectors.py`` made its states once."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import pytest
import torch

from mergerisk import merging
from tests.vectors.states import EXPERTS, State, Vectors, draw_by_name

NAMES = [
    "weight_averaging",
    "task_arithmetic",
    "ties_sum",
    "ties_mean",
    "dare",
    "della",
    "della_linear",
    "breadcrumbs",
    "model_stock",
    "slerp",
]

SKIPPED = {"breadcrumbs": ["scale"], "della": ["scale", "patch.weight"], "della_linear": ["scale", "patch.weight"]}
"""Tensors that mergekit treats otherwise; see the script."""


@cache
def vectors() -> Vectors:
    return Vectors.read(Path(__file__).parents[1] / "vectors" / "mergekit.safetensors")


def merge(name: str) -> State:
    v = vectors()
    parameters = dict(v.parameters[name])
    method, count = parameters.pop("method"), parameters.pop("experts", EXPERTS)
    return merging.merge_state_dicts(method, v.base, v.experts[:count], **parameters)


def test_versions_are_recorded() -> None:
    versions = vectors().versions
    assert versions["mergekit"] == "0.1.5"
    assert versions["torch"].startswith("2.13.0")


def test_vectors_tell_the_methods_apart() -> None:
    v = vectors()
    assert sorted(v.merged) == sorted(v.parameters) == sorted(NAMES)
    for one, two in itertools.combinations([v.base, *v.experts, *v.merged.values()], 2):
        assert v.error(one, two) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_matches_mergekit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    v = vectors()
    draw_by_name(monkeypatch, v.experts)
    # Stored and merged values are both right to a few roundings: about 2e-7 each.
    assert v.error(merge(name), v.merged[name], *SKIPPED.get(name, ())) < 1e-6


def test_breadcrumbs_keep_an_entry_of_every_tensor_unlike_mergekit() -> None:
    v = vectors()
    start, scaling = v.base["scale"], v.parameters["breadcrumbs"]["scaling"]
    assert v.merged["breadcrumbs"]["scale"] == start
    whole = start + scaling * sum(expert["scale"] - start for expert in v.experts)
    torch.testing.assert_close(merge("breadcrumbs")["scale"], whole)
