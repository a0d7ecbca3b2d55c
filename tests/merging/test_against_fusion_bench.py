"""Merging against FusionBench; ``tests/vectors/make_fusion_bench_vectors.py`` made its states once."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mergerisk import merging
from mergerisk.merging.emr import Emr, task_state
from mergerisk.models import Encoder, Head
from tests.vectors.states import EXPERTS, Vectors, cast, draw_by_name
from tests.vectors.tower import SIDE, TASKS, WIDTH, Tower

NAMES = [
    "weight_averaging",
    "task_arithmetic",
    "ties_sum",
    "ties_mean",
    "dare",
    "tsv_m",
    "wudi",
    "doge_ta",
    "iso_c",
    "iso_cts",
    "iso_cts_half",
    "svc",
    "opcm",
    "consensus",
    "model_stock",
    "slerp",
]


def tolerance(name: str, dtype: torch.dtype) -> float:
    """What roundings may do, relative to the largest entry of a task vector; the stored values have one, 1e-7."""
    if name == "model_stock":
        return 1e-5  # FusionBench adds 1e-8 to a product of norms, which is 1e-3 for the scalar
    if dtype == torch.float32 and name in {"tsv_m", "iso_c", "iso_cts", "iso_cts_half", "svc", "opcm"}:
        return 2e-5  # roundings grow by the matrices' condition, up to 50: a single SVD is off by 2e-6 here
    return 1e-6


@cache
def vectors() -> Vectors:
    return Vectors.read(Path(__file__).parents[1] / "vectors" / "fusion_bench.safetensors")


def test_versions_are_recorded() -> None:
    versions = vectors().versions
    assert versions["fusion-bench"] == "0.2.33"
    assert versions["torch"].startswith("2.13.0")


def test_vectors_tell_the_methods_apart() -> None:
    v = vectors()
    assert sorted(v.parameters) == sorted(NAMES)
    assert sorted(v.merged) == sorted([*NAMES, *(f"emr_{position}" for position in range(EXPERTS))])
    for one, two in itertools.combinations([v.base, *v.experts, *v.merged.values()], 2):
        assert v.error(one, two) > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_matches_fusion_bench(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    v = vectors()
    draw_by_name(monkeypatch, v.experts)
    parameters = dict(v.parameters[name])
    method, count = parameters.pop("method"), parameters.pop("experts", EXPERTS)
    base, *experts = [cast(state, dtype) for state in (v.base, *v.experts[:count])]
    merged = merging.merge_state_dicts(method, base, experts, **parameters)
    assert all(tensor.dtype == dtype for tensor in merged.values())
    assert v.error(merged, v.merged[name]) < tolerance(name, dtype)


def test_emr_matches_fusion_bench() -> None:
    v = vectors()
    experts = {f"task {position}": expert for position, expert in enumerate(v.experts)}
    method = merging.create("emr", rescale="tensor_mean")
    assert isinstance(method, Emr)
    parts = method.merge_tasks(v.base, experts)
    for position, task in enumerate(experts):
        assert v.error(task_state(v.base, parts, task), v.merged[f"emr_{position}"]) < 1e-6


@pytest.mark.parametrize("non_diagonal", [0.95, 1.0])
def test_regmean_plus_plus_matches_fusion_bench(non_diagonal: float) -> None:
    with safe_open(Path(__file__).parents[1] / "vectors" / "regmean_plus_plus.safetensors", "pt") as stored:
        tensors = {name: stored.get_tensor(name).double() for name in stored.keys()}  # noqa: SIM118
        assert stored.metadata()["fusion-bench"] == "0.2.33"

    def state(whose: str) -> dict[str, torch.Tensor]:
        return {
            name.removeprefix(f"{whose}/"): own for name, own in tensors.items() if name.startswith(f"{whose}/")
        }

    base = Encoder(Tower().double(), width=WIDTH, image_size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3)
    base = base.double().with_state(state("base"))
    images = {task: tensors[f"{task}/images"] for task in TASKS}
    own = {task: {name: tensor for name, tensor in state(task).items() if name != "images"} for task in TASKS}
    experts = {task: base.with_state(own[task]) for task in TASKS}
    head = Head(torch.ones(1, WIDTH), torch.zeros(1))
    calibration = {task: merging.Calibration(images[task], head) for task in TASKS}
    plain, found = (
        merging.create(name, non_diagonal=non_diagonal)
        .merge(base, experts, calibration=calibration)
        .encoder.state()
        for name in ("regmean", "regmean_plus_plus")
    )
    wanted = state(f"merged {non_diagonal}")
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-7, atol=1e-7, msg=f"{name}: ".__add__)
    # Behind the first block, it is not what RegMean makes.
    assert float((plain["blocks.2.wide.weight"] - wanted["blocks.2.wide.weight"]).abs().max()) > 1e-4
