"""Run a small study and print digests of what it says: before and after a change that must change no figure.

``python -m tests.study.run_digests [FOLDER]``. Digests differ between processors and library versions, so two commits
are compared on one machine, each with a folder of its own. What ``summary.json`` says of keys, versions, places and times is left out.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mergerisk as mr
from tests.tiny import save_tiny_models, save_tiny_vit, write_tiny_study

DIFFERS = frozenset(
    [
        "schema_version",
        "version",
        "versions",
        "git_revision",
        "store",
        "started",
        "seconds",
        "finished",
        "key",
        "keys",
        "cached",
        "stages",
        "kinds",
    ]
)


def main(folder: Path) -> None:
    """Models, study, run and digests, all in ``folder``."""
    vit = save_tiny_vit(folder / "tiny-vit")
    models = save_tiny_models(folder, vit)
    study = write_tiny_study(
        folder,
        vit,
        merging=[
            "weight_averaging",
            {"method": "adamerging", "steps": 3, "batch_size": 4},
            "emr",
            {"method": "ties+surgery", "surgery": {"steps": 10}},
            {"method": "ties+surgery_v2", "surgery_v2": {"steps": 10}},
        ],
        attacks=["fgsm", "di_fgsm"],
        ingredients={},
        outsider={"task": "blobs.npz", "fine_tune": {"epochs": 1}, "offered": True},
        other_architecture={"backbone": str(models / "other"), "fine_tune": {"epochs": 1}},
        targets=[
            {"label": "released", "encoder": str(models / "released.safetensors")},
            {"label": "asked", "callable": {"stripes": "tests.study.run_digests:brightness"}},
        ],
        surrogates=[
            "expert", "pretrained", "other_expert", "outsider", "other_architecture", "merged",
            {"ensemble": ["expert", "outsider"], "label": "both"},
        ],
        budgets={"epsilon": ["2/255", "8/255"], "steps": 3, "after": [1]},
        seeds=[0, 1],
    )  # fmt: skip
    out = folder / "run"
    mr.run(study, out, workers=1)
    for name in (
        "outcomes.parquet",
        "outcomes_by_step.parquet",
        "clean.parquet",
        "examples.safetensors",
        "results.csv",
    ):
        print(hashlib.sha256((out / name).read_bytes()).hexdigest()[:32], name)
    summary = json.dumps(steady(json.loads((out / "summary.json").read_text()), str(folder)), sort_keys=True)
    print(hashlib.sha256(summary.encode()).hexdigest()[:32], "summary.json")


def brightness(images: Any) -> Any:
    """A target that is asked: the class by how bright an image (N × 3 × H × W) is."""
    return [int(level * 30) % 3 for level in images.flatten(1).mean(1)]


def steady(content: Any, folder: str) -> Any:
    """A summary without what differs from run to run."""
    if isinstance(content, dict):
        return {name: steady(part, folder) for name, part in content.items() if name not in DIFFERS}
    if isinstance(content, list):
        return [steady(part, folder) for part in content]
    return content.replace(folder, "") if isinstance(content, str) else content


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            main(Path(place))
