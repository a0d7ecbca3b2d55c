"""The study files in docs/models_and_tasks.md, on small models and pictures of the names they use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import mergerisk as mr
from mergerisk.models.sources.families import FAMILIES
from mergerisk.study import make_plan, parse_study
from mergerisk.study.fields.surrogates import SURROGATES
from mergerisk.study.preflight import check_material
from tests.models.factory_modules import sizeless
from tests.models.material import save_classifier, save_clip
from tests.tasks.material import table, write_folder, write_parquet
from tests.tiny import STUDY, write_tiny_study

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "models_and_tasks.md").read_text(encoding="utf-8")
EXAMPLES: list[dict[str, Any]] = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    monkeypatch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("documented")
    models = folder / "models"
    write_folder(folder / "photos", {"": 6}, names=("cat", "dog"))
    write_tiny_study(folder, Path("unused"))
    (folder / "stripes.npz").rename(folder / "signs.npz")
    for split in ("train", "validation"):
        write_parquet(folder / "flowers" / f"{split}.parquet", table([0, 1, 2] * 4, names=None))
    save_classifier(models / "base", "vit")
    save_classifier(models / "photos-expert", "vit", seed=1)
    state = mr.load_encoder(str(models / "base")).state()
    for name in ("public", "released"):
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, models / f"{name}.safetensors")
    save_clip(models / "clip", context=77)
    save_classifier(models / "resnet", "resnet")
    monkeypatch.syspath_prepend(folder)
    (folder / "heads").mkdir()
    (folder / "my_models.py").write_text("from tests.models.factory_modules import sizeless as network\n")
    for name, classes in (("photos", 2), ("signs", 3)):
        save_file({"weight": torch.zeros(classes, 5)}, folder / "heads" / f"{name}.safetensors")
        save_file(sizeless().state_dict(), models / f"{name}.safetensors")
    save_file(sizeless().state_dict(), models / "network.safetensors")
    yield folder
    monkeypatch.undo()


@pytest.mark.parametrize("position", range(len(EXAMPLES)))
def test_every_example_is_a_study(folder: Path, position: int) -> None:
    rest = {"backbone": "models/base", "merging": ["weight_averaging"], "attacks": ["fgsm"]}
    study = parse_study({"budgets": STUDY["budgets"]} | rest | EXAMPLES[position], folder)
    if any(spec.source.repository for spec in study.tasks):
        assert study.task_names == ("mnist", "house_numbers")
        return
    outlines = check_material(study)
    assert {source.name for source in outlines} >= set(study.task_names)
    assert make_plan(study).stages


def test_all_names_are_documented() -> None:
    assert len(EXAMPLES) == 9
    for kind in SURROGATES:
        assert f"`{kind}" in PAGE
    for kind in FAMILIES:
        assert re.search(kind.removesuffix("_vision_model").split("_")[0].removesuffix("v2"), PAGE, re.IGNORECASE)
