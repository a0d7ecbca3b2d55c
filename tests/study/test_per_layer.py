"""Scalings of single layers and wrapped methods in study files and recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mergerisk as mr
from mergerisk.errors import UserError
from mergerisk.recipe import load_recipe, merge_checkpoints, parse_recipe
from mergerisk.store import Store
from mergerisk.study import load_study, make_plan
from mergerisk.study.workbench import Compute, Workbench
from tests.merging.test_per_layer import models
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.recipe import Recipe

LAYERED = {"method": "task_arithmetic", "scaling": {"layers.0": 0.2, "*": 0.4}, "label": "layered"}
MERGING: list[Any] = [
    LAYERED,
    {"method": "lines", "of": {"method": "ties", "scaling": {"layers.1": 1, "*": 0.5}}, "beta": 0.4},
    {"method": "svc", "label": "calibrated"},
]


def test_a_study_merges_as_direct_calls_do(tiny_vit: Path, tmp_path: Path) -> None:
    few: dict[str, Any] = {"attacks": ["fgsm"], "budgets": {"epsilon": ["8/255"]}, "surrogates": ["expert"]}
    path = write_tiny_study(tmp_path, tiny_vit, merging=MERGING, **few)
    mr.run(path, tmp_path / "run", workers=1, progress=False)
    study = load_study(tmp_path / "run" / "study.yaml")
    assert study.merging[2].parameters["of"] == {"method": "task_arithmetic", "scaling": 0.3}
    plan, bench = make_plan(study), Workbench(Store(tmp_path / "run" / "store"), Compute())
    merges: list[Any] = [stage for stage in plan.stages.values() if stage.kind == "merge"]
    assert len(merges) == 3
    for stage in merges:
        base, experts = bench.base(stage.backbone), bench.experts(stage.backbone, stage.ingredients)
        wanted = mr.merging.merge_state_dicts(stage.method, base, [*experts.values()], **stage.parameters)
        made = bench.model(stage.backbone, stage.result).encoder.state()
        assert all(torch.equal(made[name], wanted[name]) for name in wanted)


def test_layers_that_are_not_there_are_said_before_anything_runs(tiny_vit: Path, tmp_path: Path) -> None:
    spec = {"method": "svc", "of": {"method": "ties", "scaling": {"layer.0": 1, "*": 2}}}
    for entry, label in ((LAYERED | {"scaling": {"layer.0": 1, "*": 2}}, "layered"), (spec, "svc")):
        study = write_tiny_study(tmp_path, tiny_vit, merging=["ties", entry])
        with pytest.raises(
            UserError, match=f"merging: {label}: scaling: 'layer.0' matches no tensor; the model's blo"
        ):
            mr.run(study, tmp_path / "run", workers=1, progress=False)
    assert not (tmp_path / "run" / "store").exists()


def test_a_recipe_takes_them_too(tmp_path: Path) -> None:
    base, experts = models(2)
    for name, state in {"base": base, "one": experts[0], "two": experts[1]}.items():
        save_file(state, tmp_path / f"{name}.safetensors")
    of: dict[str, Any] = {"method": "task_arithmetic", "scaling": {"layers.0": 0.2, "*": 0.4}}
    files = {"base": "base.safetensors", "experts": ["one.safetensors", "two.safetensors"]}

    def recipe(method: str, **given: Any) -> Recipe:
        return parse_recipe({**files, "method": method, **given}, tmp_path)

    first = merge_checkpoints(recipe("svc", of=of), tmp_path / "merged") / "model.safetensors"
    again = merge_checkpoints(load_recipe(tmp_path / "merged" / "recipe.yaml"), tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == first.read_bytes()
    merged, wanted = load_file(first), mr.merging.merge_state_dicts("svc", base, experts, of=of)
    assert all(torch.equal(merged[name], wanted[name]) for name in wanted)
    beyond = of["scaling"] | {"layers.7": 1}
    for wrong in (recipe("svc", of=of | {"scaling": beyond}), recipe("task_arithmetic", scaling=beyond)):
        with pytest.raises(UserError, match=r"'layers\.7' matches no tensor"):
            merge_checkpoints(wrong, tmp_path / "third")
    assert not (tmp_path / "third").exists()
    with pytest.raises(UserError, match="the method looks at all layers together; remove layers"):
        merge_checkpoints(recipe("svc", layers={"head*": {"alpha": 1}}), tmp_path / "third")
