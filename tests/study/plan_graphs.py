"""Studies whose graphs of stages are on record, and a graph as text.

``python -m tests.study.plan_graphs`` writes ``tests/study/graphs/*.txt`` anew. That is right when a study is planned
otherwise on purpose, and never in a redesign.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from mergerisk.study import load_study, make_plan
from tests.models.material import save_classifier, save_clip
from tests.tasks.material import table, write_folder, write_parquet
from tests.tiny import arrays, save_tiny_models, save_tiny_vit, write_tiny_study

if TYPE_CHECKING:
    from mergerisk.study import Plan

GRAPHS = Path(__file__).parent / "graphs"
SHIPPED = ("starter", "methods")
TASKS = ["digits", "stripes.npz", "blobs.npz", "folder", "rows.parquet"]
"""One of every kind of source, so far as there is no network; of ``.npz`` files two, with options and without."""


def every_study(folder: Path) -> dict[str, Path]:
    """Study files that between them use every kind of surrogate, target, head, task and correction, on tiny data.

    Returns:
        What each is on record as → its file.
    """
    vit = save_tiny_vit(folder / "tiny-vit")
    models = save_tiny_models(folder, vit)
    write_folder(folder / "folder", {"train": 4, "test": 3})
    write_parquet(folder / "rows.parquet", table([0, 1, 2] * 8))
    for kind in ("stripes", "blobs"):
        np.savez(folder / f"{kind}.npz", **arrays(kind))
        draws = torch.Generator().manual_seed(0)
        save_file({"weight": torch.rand(3, 32, generator=draws)}, folder / f"{kind}-head.safetensors")
    sources: list[Any] = [*TASKS[:2], {"task": TASKS[2], "limit": {"test": 9}}]
    sources += [{"task": TASKS[3], "size": 16}, {"task": TASKS[4], "size": 16, "name": "rows"}]
    experts = {
        kind: save_classifier(folder / f"{kind}-expert", "vit", seed)
        for seed, kind in enumerate(("stripes", "blobs"), 1)
    }
    few = {"attacks": ["fgsm"], "budgets": {"epsilon": ["8/255"]}, "merging": ["weight_averaging"]}
    studies: dict[str, dict[str, Any]] = {
        "every_model": {
            "backbone": vit,
            "tasks": sources[:4],
            "merging": [
                "ties",
                "dare",
                {"method": "fisher", "label": "by-fisher"},
                "ties+surgery",
                "ties+surgery_v2",
                {"method": "adamerging+surgery", "steps": 3, "surgery": {"steps": 10}},
            ],
            "attacks": ["fgsm", {"attack": "mi_fgsm", "inputs": ["admix"], "label": "mi-admix"}],
            "surrogates": [
                "expert",
                "pretrained",
                "other_expert",
                "expert/blobs",
                "outsider",
                "other_architecture",
                "merged",
                "merged/released",
                {"ensemble": ["expert", "outsider", "pretrained"], "label": "three", "combine": "loss"},
            ],
            "outsider": {"task": "blobs.npz", "offered": True, "fine_tune": {"epochs": 1}},
            "other_architecture": {"backbone": str(models / "other"), "fine_tune": {"epochs": 1}},
            "targets": [
                {"label": "released", "encoder": str(models / "released.safetensors")},
                {"label": "asked", "callable": {"stripes": "tests.study.test_running:bright"}},
                {"label": "service", "http": {"blobs": "http://127.0.0.1:9/ask"}, "queries": 1000},
            ],
            "budgets": {"epsilon": ["2/255", "8/255"], "steps": 3, "after": [1, 2]},
            "seeds": [0, 1],
        },
        "own_files": few
        | {
            "backbone": vit,
            "tasks": ["stripes.npz", "blobs.npz"],
            "heads": {
                "from": "files",
                "files": {kind: f"{kind}-head.safetensors" for kind in ("stripes", "blobs")},
            },
            "experts": {"from": "files", "files": {"stripes": str(models / "released.safetensors")}},
            "ingredients": {"public": str(models / "public.safetensors")},
            "outsider": {"file": str(models / "released.safetensors")},
            "other_architecture": {"backbone": str(models / "other"), "fine_tuned": False},
            "surrogates": ["pretrained", "ingredient/public", "outsider", "other_architecture"],
        },
        "zero_shot": few | {"backbone": save_clip(folder / "clip"), "heads": {"from": "zero_shot"}},
        "checkpoint": few
        | {
            "backbone": save_classifier(folder / "classifier", "vit"),
            "heads": {"from": "checkpoint"},
            "outsider": {"task": "digits"},
            "surrogates": ["expert", "outsider"],
            "experts": {"from": "files", "files": {kind: str(other) for kind, other in experts.items()}},
        },
    }
    return {
        name: write_tiny_study(folder, **{"name": name, "backbone": vit, **changes}).rename(
            folder / f"{name}.yaml"
        )
        for name, changes in studies.items()
    }


def as_text(plan: Plan) -> str:
    """The set of its stages: a numbered list of kinds and labels, then of each stage its own number, those of what
    it is made from, and the images that it passes through models.

    Keys are not in it, nor what an input is called: only what the plan is.
    """
    names = {key: f"{stage.kind}: {stage.label}" for key, stage in plan.stages.items()}
    numbers = {name: number for number, name in enumerate(sorted(set(names.values())))}
    lines = []
    for key, stage in plan.stages.items():
        inputs = " ".join(map(str, sorted(numbers[names[needed]] for needed in set(stage.inputs.values()))))
        images = ", ".join(f"{count} {how}" for how, count in sorted(stage.cost().items()))
        lines.append((numbers[names[key]], f"{numbers[names[key]]} < {inputs} ; {images}"))
    listed = [f"{number} {name}" for name, number in numbers.items()]
    return "\n".join([*listed, "", *(line for _, line in sorted(lines)), ""])


def graphs(folder: Path) -> dict[str, str]:
    """Every graph that is on record, planned now; files that the studies need are written into ``folder``."""
    files: dict[str, str | Path] = {**{name: name for name in SHIPPED}, **every_study(folder)}
    return {name: as_text(make_plan(load_study(file))) for name, file in files.items()}


if __name__ == "__main__":
    GRAPHS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        for name, text in graphs(Path(place)).items():
            (GRAPHS / f"{name}.txt").write_text(text, encoding="utf-8")
